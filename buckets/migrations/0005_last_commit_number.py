from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('buckets', '0004_what_redis_forgot'),
    ]

    operations = [
        migrations.AddField(
            model_name='bucket',
            name='last_commit_number',
            field=models.BigIntegerField(editable=False, null=True),
        ),
    ]
