from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('buckets', '0010_most_objects'),
    ]

    operations = [
        migrations.AddField(
            model_name='bucket',
            name='held_moved',
            field=models.BigIntegerField(db_default=0, default=0, editable=False, verbose_name='objects with another time only'),
        ),
        migrations.AddField(
            model_name='bucket',
            name='held_moved_since',
            field=models.DateTimeField(editable=False, null=True),
        ),
    ]
