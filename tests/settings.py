"""The product's settings in a test run, whatever the developer's environment and .env say.

Data go to a temporary directory, and there is no Redis until a test asks for one. The environment
is set here, before the product reads it, and is inherited by every process that a test starts.
"""

import atexit
import os
import secrets
import shutil
import tempfile

_DATA_DIR = tempfile.mkdtemp(prefix="bucketwatch-tests-")
_OWNER = os.getpid()


@atexit.register
def _remove_data_dir() -> None:
    if os.getpid() == _OWNER:  # not in a forked child
        shutil.rmtree(_DATA_DIR, ignore_errors=True)


from bucketwatch.local.environment import without_product_variables  # noqa: E402

_environ = without_product_variables(os.environ)
for _name in set(os.environ) - set(_environ):
    del os.environ[_name]
os.environ |= {
    "ENV_FILE": os.devnull,
    "SECRET_KEY": secrets.token_urlsafe(50),
    "DATA_DIR": _DATA_DIR,
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "LOG_LEVEL": "WARNING",
    "SECURITY_ALLOW_PRIVATE_ENDPOINTS": "true",  # the test servers are on this host
}

from bucketwatch.settings import *  # noqa: E402, F403

# A file, as in the product: SQLite in memory locks whole tables between threads.
DATABASES["default"]["TEST"] = {"NAME": f"{_DATA_DIR}/tests.sqlite3"}  # noqa: F405
