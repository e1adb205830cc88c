from django.apps import AppConfig


class BucketsConfig(AppConfig):
    name = "buckets"

    def ready(self) -> None:
        from buckets import checks, signals  # noqa: F401, PLC0415 - two register themselves
        from buckets.accounts import roles  # noqa: PLC0415 - two register themselves

        roles.connect(self)
