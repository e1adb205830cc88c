"""Secrets in files, as Docker and Kubernetes mount them."""

import os

import pytest

from bucketwatch import env
from scanning.core.errors import ConfigurationError

SECRET = "hunter2-value"


@pytest.fixture
def secret_file(tmp_path):
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    return path


@pytest.mark.parametrize("name", sorted(env.secret_variables()))
def test_every_secret_may_be_in_a_file(secret_file, name):
    assert env.with_secret_files({f"{name}_FILE": str(secret_file)})[name] == SECRET


def test_nothing_but_line_ends_is_cut_off(tmp_path):
    path = tmp_path / "password"
    path.write_bytes(b" blanks belong to it \r\n")
    environ = env.with_secret_files({"REDIS_PASSWORD_FILE": str(path)})
    assert environ["REDIS_PASSWORD"] == " blanks belong to it "


def test_what_is_no_secret_is_not_read_from_a_file(secret_file):
    environ = {"HOST_FILE": str(secret_file), "ENV_FILE": os.devnull}
    assert env.with_secret_files(environ) == environ


@pytest.mark.parametrize("unset", ["REDIS_URL", "REDIS_URL_FILE"])
def test_an_empty_variable_leaves_the_other_alone(secret_file, unset):
    environ = {"REDIS_URL": "redis://r", "REDIS_URL_FILE": str(secret_file), unset: ""}
    expected = {"REDIS_URL": SECRET, "REDIS_URL_FILE": "redis://r"}[unset]
    assert env.with_secret_files(environ)["REDIS_URL"] == expected


def test_a_secret_that_is_given_twice_is_refused(secret_file):
    environ = {"VAULT_KEY": SECRET, "VAULT_KEY_FILE": str(secret_file)}
    with pytest.raises(ConfigurationError) as error:
        env.with_secret_files(environ)
    assert str(error.value) == "VAULT_KEY and VAULT_KEY_FILE are both set: keep one of them"


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "is empty"), (b"\n\n", "is empty"), (b"\xff\xfe", "is not text in UTF-8")],
)
def test_a_file_without_a_usable_secret_is_refused(tmp_path, content, problem):
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as error:
        env.with_secret_files({"SECRET_KEY_FILE": str(path)})
    assert str(error.value) == f"SECRET_KEY_FILE: {path} {problem}"


def test_a_file_that_is_missing_is_named(tmp_path):
    path = tmp_path / "gone"
    with pytest.raises(ConfigurationError, match=f"^SECRET_KEY_FILE: cannot read {path}: No such"):
        env.with_secret_files({"SECRET_KEY_FILE": str(path)})


def test_the_process_finds_its_secrets_in_files(secret_file, tmp_path, monkeypatch):
    monkeypatch.setenv("JWT_SECRET_FILE", str(secret_file))
    assert env.environment(tmp_path)["JWT_SECRET"] == SECRET
