import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('buckets', '0013_probe_interval'),
    ]

    operations = [
        migrations.AddField(
            model_name='bucket',
            name='polling_longest',
            field=models.PositiveIntegerField(blank=True, help_text='Seconds that the interval may grow to while nothing changes; 0: it does not grow. Left empty, the configured default.', null=True, validators=[django.core.validators.MaxValueValidator(604800, 'Enter at most 604800 seconds (7 days), or 0 for none.')], verbose_name='longest interval (s)'),
        ),
        migrations.AddConstraint(
            model_name='bucket',
            constraint=models.CheckConstraint(condition=models.Q(('polling_longest__isnull', True), ('polling_longest__range', (0, 604800)), _connector='OR'), name='bucket_polling_longest', violation_error_message='Enter a longest interval of at most 604800 seconds, or 0.'),
        ),
    ]
