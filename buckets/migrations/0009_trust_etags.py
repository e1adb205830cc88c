from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('buckets', '0008_endpoints'),
    ]

    operations = [
        migrations.AddField(
            model_name='bucket',
            name='trust_etags',
            field=models.BooleanField(default=False, help_text='Objects of which only the time moved, not ETag or size, are no updates.', verbose_name='trust ETags'),
        ),
    ]
