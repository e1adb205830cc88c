"""Django settings: one file, driven by the environment (`docs/configuration.md` lists it)."""

from datetime import timedelta
from pathlib import Path

import dj_database_url

from bucketwatch import env

BASE_DIR = Path(__file__).resolve().parent.parent

_environ = env.environment(BASE_DIR)
SITE = env.load_site(_environ)
SCANNING, CONFIGURATION_WARNINGS = env.load_scanning(_environ)

DATA_DIR = BASE_DIR / SITE.data_dir
DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)  # password hashes, and the vault

SECRET_KEY = SITE.secret_key.get_secret_value()
DEBUG = SITE.debug
ALLOWED_HOSTS = [host.strip() for host in SITE.allowed_hosts.split(",") if host.strip()]
CSRF_TRUSTED_ORIGINS = [o.strip() for o in SITE.csrf_trusted_origins.split(",") if o.strip()]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_q",
    "buckets",
    "scanning",
]

MIDDLEWARE = [
    "bucketwatch.middleware.ProbesFirst",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "bucketwatch.urls"
WSGI_APPLICATION = "bucketwatch.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# With fewer than these, six writing processes saw "database is locked" (docs/adr/0003).
_SQLITE_OPTIONS = {
    "timeout": 20,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
}
DATABASES = {
    "default": dj_database_url.parse(
        SITE.database_url.get_secret_value()
        if SITE.database_url
        else f"sqlite:///{DATA_DIR / 'bucketwatch.sqlite3'}",
        conn_max_age=60,
    )
}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = _SQLITE_OPTIONS
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# In this process: failed log-ins are counted here, also while Redis is away.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 10_000},
    }
}

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["buckets.api.auth.ApiClientAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["buckets.api.auth.IsApiClient"],
    "DEFAULT_PARSER_CLASSES": ["buckets.api.negotiation.JSONObjectParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "buckets.api.negotiation.AlwaysJSON",
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "buckets.api.errors.answer",
    "UNAUTHENTICATED_USER": None,  # API clients are no Django users
}
SPECTACULAR_SETTINGS = {
    "OAS_VERSION": "3.1.0",
    "TITLE": "bucketwatch",
    "VERSION": "1",
    "DESCRIPTION": "Which buckets are watched, how, and what happened in them. No route needs the "
    'slash at its end. Every error is `{"error": …, "fields": {…}}`.',
    "PREPROCESSING_HOOKS": ["buckets.api.openapi.name_paths"],
    "POSTPROCESSING_HOOKS": ["buckets.api.openapi.finish"],
    "COMPONENT_SPLIT_PATCH": False,  # bodies of PATCH have serializers of their own
    "ENFORCE_NON_BLANK_FIELDS": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
}
SIMPLE_JWT = {
    "SIGNING_KEY": SITE.jwt_secret.get_secret_value() if SITE.jwt_secret else SECRET_KEY,
    "ACCESS_TOKEN_LIFETIME": timedelta(hours=24),
    "AUTH_HEADER_TYPES": ("Bearer", "bearer"),
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATIC_ROOT.mkdir(exist_ok=True)  # WhiteNoise warns at each start when there is none
WHITENOISE_USE_FINDERS = True  # no collectstatic step between a clone and a styled page

# Work that the monitor process does for the control plane every few seconds: dotted paths,
# because the engine may not import it.
HOUSEKEEPING = ["buckets.mirror.catch_up", "buckets.removals.flush", "buckets.status.flush"]
# The control plane's writes, for `MultiRegionMonitor.add_bucket_to_active_config` and its siblings.
BUCKET_WRITES = {
    "add": "buckets.programs.add",
    "update": "buckets.programs.update",
    "delete": "buckets.programs.delete",
}
WEB_BIND: str = f"{SITE.host}:{SITE.port}"

Q_CLUSTER = {
    "name": "bucketwatch",
    "broker_class": "scanning.clusters.RegionBroker",
    "workers": 1,  # a region's scans run in threads of one process
    # A last resort: scan_region has a time budget of its own, but a bucket of millions of objects
    # takes as long as its listing does.
    "timeout": 3600,
    "retry": 3660,
    "queue_limit": 1,
    "save_limit": -1,  # tasks are wake-ups: their results say nothing
    "scheduler": False,
    "ack_failures": True,
    "guard_cycle": 1,
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "{asctime} {levelname:<7} {name}: {message}", "style": "{"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": SITE.log_level},
    "loggers": {
        # At INFO it writes three lines for every wake-up.
        "django-q": {"handlers": ["console"], "level": "WARNING", "propagate": False},
        "botocore": {"level": "WARNING"},
        "urllib3": {"level": "WARNING"},
    },
}
