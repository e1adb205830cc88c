import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('buckets', '0012_request_budgets'),
    ]

    operations = [
        migrations.AddField(
            model_name='bucket',
            name='probe_interval',
            field=models.PositiveIntegerField(blank=True, help_text="Seconds between two probes, which ask for the bucket's totals and have it looked at when they move; 0: none; left empty, the configured default.", null=True, validators=[django.core.validators.MaxValueValidator(604800, 'Enter at most 604800 seconds (7 days).')], verbose_name='probe interval (s)'),
        ),
        migrations.AlterField(
            model_name='endpoint',
            name='totals',
            field=models.CharField(blank=True, choices=[('rgw', 'rgw'), ('none', 'none')], help_text='Does HEAD of a bucket tell its totals? Empty: as it is learnt.', max_length=16),
        ),
        migrations.AddConstraint(
            model_name='bucket',
            constraint=models.CheckConstraint(condition=models.Q(('probe_interval__isnull', True), ('probe_interval__range', (0, 604800)), _connector='OR'), name='bucket_probe_interval', violation_error_message='Enter a probe interval from 0 to 604800 seconds.'),
        ),
    ]
