"""What `manage.py check` says about a configuration."""

import os

from buckets import checks


def test_members_of_the_file_that_nothing_reads_are_warned_of(settings):
    settings.CONFIGURATION_WARNINGS = ["site.yml: nothing reads redis.hots"]

    [warning] = checks.configuration_is_known()

    assert warning.id == "bucketwatch.W001"
    assert "redis.hots" in warning.msg


def test_a_data_directory_that_is_there_is_fine(settings, tmp_path):
    settings.DATA_DIR = tmp_path

    assert checks.data_dir_is_writable() == []


def test_a_data_directory_that_is_missing_is_an_error_that_names_the_setting(settings, tmp_path):
    settings.DATA_DIR = tmp_path / "gone"

    [error] = checks.data_dir_is_writable()

    assert error.id == "bucketwatch.E001"
    assert error.msg.startswith("DATA_DIR: ")
    assert "does not exist" in error.msg


def test_a_data_directory_that_is_read_only_is_an_error(settings, tmp_path, monkeypatch):
    settings.DATA_DIR = tmp_path
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere

    [error] = checks.data_dir_is_writable()

    assert "not writable" in error.msg
