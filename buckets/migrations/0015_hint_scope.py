from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('buckets', '0014_polling_longest'),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name='apiclient',
            name='api_client_scope',
        ),
        migrations.AlterField(
            model_name='apiclient',
            name='scope',
            field=models.CharField(choices=[('manage', 'read and change'), ('read', 'read only'), ('hint', 'give hints only')], default='manage', max_length=10),
        ),
        migrations.AddConstraint(
            model_name='apiclient',
            constraint=models.CheckConstraint(condition=models.Q(('scope__in', ['manage', 'read', 'hint'])), name='api_client_scope'),
        ),
    ]
