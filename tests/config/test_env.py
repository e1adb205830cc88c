"""Configuration: the YAML file, the environment over it, and one line for whatever is wrong."""

import base64
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from bucketwatch import env
from scanning.config.settings import EngineSettings
from scanning.core.errors import ConfigurationError
from tests.support.processes import ROOT

SECRET = "hunter2-value"
KEY = "k" * 50

DOCUMENTED = """
parallel: {max_workers: 60, rate_limit_per_region: 15, stagger_method: hash}
defaults: {polling_interval: 60, max_objects_per_batch: 1000, endpoint: us-east-1.linodeobjects.com}
redis:    {sentinel_host: redis-sentinel, sentinel_port: 26379, master_name: mymaster,
           host: localhost, port: 6379, db: 0, password: null,
           queue_name: "linode:notifications:queue",
           state_prefix: "linode:objstore:state:", ttl: 2592000}
"""


@pytest.fixture
def load(tmp_path) -> Callable[..., tuple[EngineSettings, list[str]]]:
    """Load a YAML text under these variables."""

    def run(text: str | bytes = "", /, **variables: str) -> tuple[EngineSettings, list[str]]:
        path = tmp_path / "config.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return env.load_scanning({"CONFIG_PATH": str(path)} | variables)

    return run


@pytest.fixture
def refusal(load, tmp_path) -> Callable[..., str]:
    """The one line that a wrong configuration is refused with, without the file's directory."""

    def run(text: str | bytes = "", /, **variables: str) -> str:
        with pytest.raises(ConfigurationError) as error:
            load(text, **variables)
        assert "\n" not in str(error.value)
        return str(error.value).replace(f"{tmp_path}/", "")

    return run


# --- where values come from


def test_without_a_file_there_are_defaults_and_no_sentinel():
    conf, warnings = env.load_scanning({})
    assert warnings == []
    assert conf.redis.sentinel_host == ""
    assert (conf.redis.host, conf.redis.port) == ("localhost", 6379)


def test_the_documented_file_is_read(load):
    conf, warnings = load(DOCUMENTED)
    assert warnings == []
    assert conf.redis.sentinel_host == "redis-sentinel"
    assert conf == EngineSettings().model_copy(
        update={"redis": conf.redis.model_copy(update={"sentinel_host": "redis-sentinel"})}
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "redis:\n", "redis: {}\ndefaults: null\n"])
def test_an_empty_file_and_empty_sections_mean_defaults(load, text):
    assert load(text) == (EngineSettings(), [])


@pytest.mark.parametrize(
    ("variable", "value", "section", "member", "expected"),
    [
        ("PARALLEL_MAX_WORKERS", "7", "parallel", "max_workers", 7),
        ("PARALLEL_STAGGER_METHOD", "equal", "parallel", "stagger_method", "equal"),
        ("DEFAULTS_POLLING_INTERVAL", "90", "defaults", "polling_interval", 90),
        ("POLLING_INTERVAL", "90", "defaults", "polling_interval", 90),
        ("REDIS_HOST", "r.example", "redis", "host", "r.example"),
        ("REDIS_SENTINEL_HOST", "s1,s2:26380", "redis", "sentinel_host", "s1,s2:26380"),
        ("READY_REQUIRE_WEBHOOK", "false", "ready", "require_webhook", False),
        ("STORAGE_READ_TIMEOUT", "12.5", "storage", "read_timeout", 12.5),
        ("PROBE_INTERVAL", "auto", "probe", "interval", "auto"),
        ("PROBE_INTERVAL", "30", "probe", "interval", 30),
        ("PROBE_INTERVAL", "0", "probe", "interval", 0),
    ],
)
def test_the_environment_wins_over_the_file(load, variable, value, section, member, expected):
    conf, _ = load(DOCUMENTED, **{variable: value})
    assert getattr(getattr(conf, section), member) == expected


def test_the_names_in_use_win_over_the_rule(load):
    conf, _ = load(DOCUMENTED, POLLING_INTERVAL="30", DEFAULTS_POLLING_INTERVAL="40")
    assert conf.defaults.polling_interval == 30


def test_an_empty_variable_counts_as_not_set(load):
    assert load("redis: {port: 7000}", REDIS_PORT="")[0].redis.port == 7000


def test_an_empty_sentinel_host_switches_the_files_sentinel_off(load):
    assert load(DOCUMENTED, REDIS_SENTINEL_HOST="")[0].redis.sentinel_host == ""


def test_sentinels_are_hosts_with_or_without_a_port(load):
    conf, _ = load(REDIS_SENTINEL_HOST="s1, s2:26380,[fd00::7], [fd00::8]:26381,", REDIS_URL="")
    assert conf.redis.sentinels == (
        ("s1", 26379),
        ("s2", 26380),
        ("fd00::7", 26379),
        ("fd00::8", 26381),
    )


def test_a_redis_url_and_a_password_are_kept_out_of_a_repr(load):
    conf, _ = load(REDIS_URL=f"redis://:{SECRET}@r:6379/0", REDIS_PASSWORD=SECRET)
    assert SECRET not in repr(conf)
    assert conf.redis.password is not None
    assert conf.redis.password.get_secret_value() == SECRET


# --- what is wrong


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PARALLEL_MAX_WORKERS", SECRET),
        ("PARALLEL_MAX_WORKERS", "0"),
        ("PARALLEL_STAGGER_METHOD", SECRET),
        ("POLLING_INTERVAL", "-1"),
        ("DEFAULTS_POLLING_INTERVAL", SECRET),
        ("PROBE_INTERVAL", SECRET),
        ("PROBE_INTERVAL", "-1"),
        ("PROBE_INTERVAL", "604801"),
        ("REDIS_PORT", "65536"),
        ("REDIS_URL", f"http://{SECRET}"),
        ("REDIS_URL", f"redis://host:{SECRET}"),
        ("REDIS_SENTINEL_HOST", f"host:{SECRET}"),
        ("REDIS_SENTINEL_HOST", "host:0"),
        ("REDIS_SENTINEL_HOST", "host:"),
        ("REDIS_SENTINEL_HOST", f"user:{SECRET}@host"),
        ("REDIS_TLS", SECRET),
        ("REDIS_TLS_CA", SECRET),
        ("REDIS_TTL", "1"),
        ("READY_REQUIRE_WEBHOOK", SECRET),
        ("STORAGE_CONNECT_TIMEOUT", "nan"),
    ],
)
def test_a_wrong_variable_is_named_and_its_value_is_not_shown(refusal, variable, value):
    message = refusal(DOCUMENTED, **{variable: value})
    assert message.startswith(f"{variable}: ")
    assert SECRET not in message


@pytest.mark.parametrize(
    ("text", "member"),
    [
        (f"parallel: {{max_workers: {SECRET}}}", "parallel.max_workers"),
        (f"redis: {{password: [{SECRET}]}}", "redis.password"),
        (f"redis: {{port: {SECRET}}}", "redis.port"),
        ("redis: {port: null}", "redis.port"),
        ("redis: {queue_name: ''}", "redis.queue_name"),
        ("defaults: {polling_interval: 1.5}", "defaults.polling_interval"),
    ],
)
def test_a_wrong_member_of_the_file_is_named_and_its_value_is_not_shown(refusal, text, member):
    message = refusal(text)
    assert message.startswith(f"config.yaml: {member}: ")
    assert SECRET not in message


def test_a_rule_of_ours_is_said_without_the_librarys_words(refusal):
    message = refusal(REDIS_URL="http://host")
    assert message == "REDIS_URL: must begin with redis://, rediss:// or unix://"


@pytest.mark.parametrize(
    "pattern", ["", "s3.example.com", "{region}.{region}.example.com", "{region}.{zone}.com"]
)
def test_an_endpoint_of_regions_without_a_place_for_the_region_is_refused(refusal, pattern):
    message = refusal(f"defaults: {{region_endpoint: '{pattern}'}}")
    assert message.startswith("config.yaml: defaults.region_endpoint: must be an endpoint with")


def test_half_a_client_certificate_is_refused(refusal):
    assert "REDIS_TLS_CERT and REDIS_TLS_KEY" in refusal(REDIS_TLS_CERT=__file__)


def test_all_wrong_values_are_named_in_one_line(refusal):
    message = refusal("redis: {port: 0}", POLLING_INTERVAL="x", PARALLEL_MAX_WORKERS="y")
    assert all(name in message for name in ("redis.port", "POLLING_INTERVAL", "MAX_WORKERS"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"redis: {{\n  host: {SECRET}\n", "CONFIG_PATH: config.yaml is not YAML (line 3)"),
        (f"\tredis: {SECRET}", "CONFIG_PATH: config.yaml is not YAML (line 1)"),
        (b"redis: \xff\xfe", "CONFIG_PATH: config.yaml is not YAML"),
        ("!!python/object/apply:os.getcwd []", "CONFIG_PATH: config.yaml is not YAML (line 1)"),
        (
            f"redis:\n  host: here\nqueue: {{}}\nredis:\n  host: {SECRET}\n",
            "CONFIG_PATH: config.yaml has the same key twice in one place (line 4)",
        ),
        (
            f"redis:\n  host: here\n  host: {SECRET}\n",
            "CONFIG_PATH: config.yaml has the same key twice in one place (line 3)",
        ),
        ("- redis", "CONFIG_PATH: config.yaml must hold sections such as redis:, found none"),
        (SECRET, "CONFIG_PATH: config.yaml must hold sections such as redis:, found none"),
        ("redis: localhost", "config.yaml: redis must be a mapping of settings"),
    ],
    ids=[
        "unfinished",
        "tab",
        "not UTF-8",
        "object",
        "section twice",
        "member twice",
        "list",
        "text",
        "section",
    ],
)
def test_a_file_that_makes_no_sense_is_refused(refusal, text, message):
    assert refusal(text) == message


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(ConfigurationError, match=f"CONFIG_PATH: cannot read {path}: "):
        env.load_scanning({"CONFIG_PATH": str(path)})


def test_members_that_nothing_reads_are_warned_of(load, tmp_path):
    conf, warnings = load("redis: {hots: x, 7: y}\nlogging: {level: 1}\n3: {}\nparallel: {}\n")
    assert conf == EngineSettings()
    assert [text.replace(f"{tmp_path}/", "") for text in warnings] == [
        "config.yaml: nothing reads redis.hots, redis.7, logging, 3"
    ]


def test_what_is_warned_of_is_printable(load):
    [warning] = load('"a\\n\\e[31mb": {}\n')[1]
    assert warning.endswith("nothing reads a??[31mb")


OLDER = """
redis:
  master: {host: redis-master, port: 6380, db: 2, password: hunter2-value, socket_timeout: 5}
  slave: {host: redis-replica, port: 6381}
  queue_name: "linode:notifications:queue"
logging: {level: INFO}
webhook: {timeout: 10}
"""


def test_the_older_monitors_redis_is_its_master(load):
    conf, [warning] = load(OLDER)
    found = conf.redis
    assert (found.host, found.port, found.db) == ("redis-master", 6380, 2)
    assert found.password is not None
    assert found.password.get_secret_value() == SECRET
    assert warning.endswith("nothing reads logging, webhook")


@pytest.mark.parametrize(
    ("master", "address"),
    [
        ("r.example", ("r.example", 6379)),
        ("r.example:7000", ("r.example", 7000)),
        ("{host: r.example}", ("r.example", 6379)),
        ("null", ("localhost", 6379)),
    ],
)
def test_a_master_may_be_an_address(load, master, address):
    conf, warnings = load(f"redis: {{master: {master}, slave: [r2.example]}}")
    assert (conf.redis.host, conf.redis.port) == address
    assert warnings == []


def test_a_master_may_be_a_url_and_the_environment_wins_over_it(load):
    text = "redis: {master: 'redis://r.example:7000/3'}"
    assert load(text)[0].redis.url.get_secret_value() == "redis://r.example:7000/3"
    conf, _ = load("redis: {master: {host: a, port: 7000}}", REDIS_HOST="b")
    assert (conf.redis.host, conf.redis.port) == ("b", 7000)


def test_a_master_that_makes_no_sense_is_refused_without_being_shown(refusal):
    message = refusal(f"redis: {{master: [{SECRET}]}}")
    assert "master must be host, host:port, a URL" in message
    assert SECRET not in message


# --- the web application's variables


def test_the_site_needs_nothing_but_a_secret_key():
    site = env.load_site({"SECRET_KEY": KEY})
    assert (site.port, site.debug, site.log_level) == (8080, False, "INFO")
    assert KEY not in repr(site)


@pytest.mark.parametrize("environ", [{}, {"SECRET_KEY": ""}])
def test_without_a_secret_key_the_message_says_how_to_make_one(environ):
    with pytest.raises(ConfigurationError, match=r"^SECRET_KEY is not set: .*token_urlsafe"):
        env.load_site(environ)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", SECRET),
        ("PORT", "0"),
        ("DEBUG", SECRET),
        ("LOG_LEVEL", SECRET),
        ("ALLOWED_HOSTS", f"https://{SECRET}"),
        ("ALLOWED_HOSTS", f"localhost,{SECRET}:8080"),
        ("ALLOWED_HOSTS", f"localhost {SECRET}"),
        ("CSRF_TRUSTED_ORIGINS", f"{SECRET}.example.com"),
        ("CSRF_TRUSTED_ORIGINS", f"https://{SECRET}/admin"),
        ("DATABASE_URL", SECRET),
        ("DATABASE_URL", f"mysql://u:{SECRET}@db/name"),
        ("DATABASE_URL", f"postgres://u:{SECRET}/x@db/name"),
        ("DATABASE_URL", f"postgres://u:{SECRET}@db:0/name"),
        ("VAULT_KEY", SECRET),
        ("VAULT_KEY", base64.urlsafe_b64encode(b"x" * 31).decode()),
    ],
)
def test_a_wrong_variable_of_the_site_is_named_and_its_value_is_not_shown(variable, value):
    with pytest.raises(ConfigurationError) as error:
        env.load_site({"SECRET_KEY": KEY, variable: value})
    assert str(error.value).startswith(f"{variable}: ")
    assert SECRET not in str(error.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALLOWED_HOSTS", "*"),
        ("ALLOWED_HOSTS", ".example.com, watch_1.example.org.,10.0.0.1,[fd00::1],"),
        ("CSRF_TRUSTED_ORIGINS", "https://watch.example.com, http://[::1]:8080"),
        ("CSRF_TRUSTED_ORIGINS", "https://*.example.com"),
    ],
)
def test_hosts_and_origins_as_django_takes_them_are_taken(variable, value):
    site = env.load_site({"SECRET_KEY": KEY, variable: value})
    assert getattr(site, variable.lower()) == value


def test_a_vault_key_that_infisical_leaves_unused_is_not_looked_at():
    names = ("CLIENT_ID", "CLIENT_SECRET", "PROJECT_ID")
    infisical = {f"INFISICAL_{name}": "given" for name in names}
    assert env.load_site({"SECRET_KEY": KEY, "VAULT_KEY": SECRET, **infisical}).uses_infisical


@pytest.mark.parametrize(
    ("given", "missing"),
    [("API_CLIENT_ID", "API_CLIENT_SECRET"), ("API_CLIENT_SECRET", "API_CLIENT_ID")],
)
def test_half_an_api_client_stops_the_start_and_says_what_is_missing(given, missing):
    with pytest.raises(ConfigurationError) as error:
        env.load_site({"SECRET_KEY": KEY, given: SECRET})
    assert str(error.value) == f"{missing} is not set, and {given} is: set both"


@pytest.mark.parametrize(
    "url", ["postgres://u:p%2F@db:5432/name", "postgresql://db/name", "sqlite:////srv/b.sqlite3"]
)
def test_a_database_may_be_postgresql_or_sqlite(url):
    site = env.load_site({"SECRET_KEY": KEY, "DATABASE_URL": url})
    assert site.database_url is not None
    assert site.database_url.get_secret_value() == url


def test_a_log_level_may_be_in_lower_case():
    assert env.load_site({"SECRET_KEY": KEY, "LOG_LEVEL": "debug"}).log_level == "DEBUG"


# --- .env


def test_the_environment_wins_over_the_env_file(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("FROM_FILE=file\nFROM_BOTH=file\n")
    monkeypatch.delenv("ENV_FILE")
    monkeypatch.setenv("FROM_BOTH", "process")
    environ = env.environment(tmp_path)
    assert (environ["FROM_FILE"], environ["FROM_BOTH"]) == ("file", "process")


def test_another_env_file_can_be_named_and_must_be_there(tmp_path, monkeypatch):
    path = tmp_path / "other.env"
    monkeypatch.setenv("ENV_FILE", str(path))
    with pytest.raises(ConfigurationError, match=f"ENV_FILE: there is no file {path}"):
        env.environment(tmp_path)
    path.write_text("FROM_FILE=file\n")
    assert env.environment(tmp_path)["FROM_FILE"] == "file"


# --- as an operator meets it


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SECRET_KEY": ""}, "SECRET_KEY is not set"),
        ({"PARALLEL_MAX_WORKERS": SECRET}, "PARALLEL_MAX_WORKERS: "),
        ({"CONFIG_PATH": "/nowhere/config.yaml"}, "CONFIG_PATH: cannot read"),
    ],
    ids=["no secret key", "wrong value", "no file"],
)
def test_a_wrong_configuration_stops_the_start_with_one_line(variables, message):
    done = subprocess.run(
        [sys.executable, "manage.py", "runmonitor"],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith(f"bucketwatch cannot start: {message}")
    assert SECRET not in line


def said(tmp_path, *command: str) -> str:
    """What a command says under the older monitor's file, without a Redis."""
    path = tmp_path / "config.yaml"
    path.write_text(OLDER)
    done = subprocess.run(
        [sys.executable, "manage.py", *command],
        cwd=ROOT,
        env={**os.environ, "CONFIG_PATH": str(path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stderr


def test_an_older_monitors_file_is_warned_of_in_one_line_where_it_is_checked(tmp_path):
    [line] = [line for line in said(tmp_path, "check").splitlines() if "config.yaml" in line]
    assert "nothing reads logging, webhook. Remove them, or correct their names" in line


def test_commands_do_not_say_again_what_nothing_reads(tmp_path):
    stderr = said(tmp_path, "explain", "media-in", "key")
    assert "Redis does not answer" in stderr
    assert "config.yaml" not in stderr
