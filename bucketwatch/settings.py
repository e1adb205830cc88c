"""Django settings: one file, driven by the environment (`docs/configuration.md` lists it)."""

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import dj_database_url
from csp.constants import NONE, SELF

from bucketwatch import __version__, env
from scanning.adapters.vault.files import keep_private

BASE_DIR = Path(__file__).resolve().parent.parent

_environ = env.environment(BASE_DIR)
SITE = env.load_site(_environ)
SCANNING, CONFIGURATION_WARNINGS = env.load_scanning(_environ)

DATA_DIR = BASE_DIR / SITE.data_dir
DATA_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)  # password hashes, and the vault

SECRET_KEY = SITE.secret_key.get_secret_value()
VERSION = __version__
DEBUG = SITE.debug
ALLOWED_HOSTS = env.entries(SITE.allowed_hosts)
CSRF_TRUSTED_ORIGINS = env.entries(SITE.csrf_trusted_origins)

# --- The browser's side of security (docs/security.md).
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = SITE.https_only
SESSION_COOKIE_AGE = 24 * 3600
CSRF_COOKIE_HTTPONLY = True  # scripts of ours take the token from the page
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = SITE.hsts_seconds if SITE.https_only else 0
# Whether other hosts of the domain speak HTTPS is not this program's to say.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
if SITE.trusted_proxies:  # they say which requests came over HTTPS, and from where
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    # Without them every request looks like HTTP, and a redirect would lead to itself.
    SECURE_SSL_REDIRECT = SITE.https_only
DATA_UPLOAD_MAX_MEMORY_SIZE = 1_048_576
DATA_UPLOAD_MAX_NUMBER_FILES = 0  # no form takes a file

INSTALLED_APPS = [
    "bucketwatch.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_otp",
    "django_q",
    "buckets",
    "scanning",
]

MIDDLEWARE = [
    "bucketwatch.middleware.OneWaitForRedis",
    "bucketwatch.middleware.ClientAddress",
    "bucketwatch.middleware.ProbesFirst",
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "bucketwatch.middleware.SecondFactorFirst",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

# Nothing inline, nothing from elsewhere: a bucket's or object's name can never become a script.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "object-src": [NONE],
    }
}

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
    # It holds sessions and password hashes, and DATA_DIR may have been there, readable for all.
    # SQLite gives the files beside it the same mode; those that are there already get it here.
    _file = Path(DATABASES["default"]["NAME"])
    for _path in (_file, *(Path(f"{_file}-{end}") for end in ("wal", "shm"))):
        if _path == _file or _path.exists():
            keep_private(_path)
elif DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
    # A server that was started again, or a host that does not answer, costs no request a minute.
    DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
    DATABASES["default"]["OPTIONS"] = {
        "connect_timeout": 5,
        **DATABASES["default"].get("OPTIONS", {}),
    }
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
    "VERSION": VERSION,
    "DESCRIPTION": "Which buckets are watched, how, and what happened in them. No route needs the "
    'slash at its end. Every error is `{"error": …, "fields": {…}}`.',
    "PREPROCESSING_HOOKS": ["buckets.api.openapi.views.name_paths"],
    "POSTPROCESSING_HOOKS": ["buckets.api.openapi.views.finish"],
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

LOGIN_REDIRECT_URL = "admin:index"  # where a refused next= leads to

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
FORMAT_MODULE_PATH = ["bucketwatch.formats"]
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
with suppress(OSError):  # where we may not write, WhiteNoise warns at each start, and no more
    STATIC_ROOT.mkdir(exist_ok=True)
WHITENOISE_USE_FINDERS = True  # no collectstatic step between a clone and a styled page

# Work that the monitor process does for the control plane every few seconds: dotted paths,
# because the engine may not import it.
LOOK_FOR_LOSSES = "buckets.sync.losses.check"
PERIODIC_JOBS = [
    LOOK_FOR_LOSSES,  # first: until then nothing is scanned
    "buckets.sync.outbox.catch_up",
    "buckets.sync.endpoints.catch_up",
    "buckets.sync.vault_removals.flush",
    "buckets.sync.scan_status.flush",
    "buckets.sync.rotated_keys.check",
]
# The control plane's writes, for `MultiRegionMonitor.add_bucket_to_active_config` and its siblings.
BUCKET_WRITES = {
    "add": "buckets.api.bucket_commands.add",
    "update": "buckets.api.bucket_commands.update",
    "delete": "buckets.api.bucket_commands.delete",
}
WEB_BIND: str = f"{SITE.host}:{SITE.port}"

Q_CLUSTER = {
    "name": "bucketwatch",
    "broker_class": "scanning.runtime.django_q2.RegionBroker",
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
    "filters": {
        "scan": {"()": "scanning.logs.ScanFilter"},
        "no_probes": {"()": "bucketwatch.logs.WithoutProbes"},
        "refusals": {"()": "bucketwatch.logs.RefusalsInOneLine"},
    },
    "formatters": {
        "text": {"format": "{asctime} {levelname:<7} {name}: {message}{in_scan}", "style": "{"},
        "json": {"()": "scanning.logs.json_formatter"},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": SITE.log_format,
            "filters": ["scan", "refusals"],
        }
    },
    "root": {"handlers": ["console"], "level": SITE.log_level},
    "loggers": {
        # At INFO it writes three lines for every wake-up.
        "django-q": {"handlers": ["console"], "level": "WARNING", "propagate": False},
        "django.request": {"filters": ["no_probes"]},
        "botocore": {"level": "WARNING"},
        "urllib3": {"level": "WARNING"},
    },
}
