"""`manage.py copyvault`: from the embedded vault into Infisical."""

import pytest
from pytest_django import Settings

from scanning import wiring
from scanning.core.types import KeyPair
from tests.support.commands import manage
from tests.support.infisical_server import InfisicalServer, configured

SECRET = "MEDIA_IN_WEBHOOK_CLIENT_SECRET"


@pytest.fixture
def moving(settings: Settings, infisical_server: InfisicalServer) -> InfisicalServer:
    """An embedded vault with entries, and settings that name Infisical from now on."""
    wiring.vault().write("MEDIA_IN", KeyPair("AKIA", "secret-key"))
    wiring.vault().write_many({SECRET: "client-secret"})
    settings.SITE = configured(infisical_server)
    wiring.reset()
    return infisical_server


def test_entries_are_copied_and_what_infisical_has_is_left_alone(moving, capsys):
    moving.put(MEDIA_IN_ACCESS_KEY="newer")
    ran = manage(capsys, "copyvault")
    assert ran == (0, f"MEDIA_IN_SECRET_KEY\n{SECRET}\n2 copied, 1 were there already.\n", "")
    assert moving.values == {
        "MEDIA_IN_ACCESS_KEY": "newer",
        "MEDIA_IN_SECRET_KEY": "secret-key",
        SECRET: "client-secret",
    }
    assert "0 copied, 3 were there already." in manage(capsys, "copyvault").out


def test_a_dry_run_copies_nothing(moving, capsys):
    assert "3 would be copied, 0 were there" in manage(capsys, "copyvault", "--dry-run").out
    assert moving.values == {}


def test_what_infisical_refuses_is_said(moving, capsys):
    moving.fail("read-only")
    ran = manage(capsys, "copyvault")
    assert ran.status == 1
    assert "Infisical does not permit this" in ran.err
    assert "secret-key" not in ran.out + ran.err


def test_without_infisical_there_is_nowhere_to_copy_to(capsys):
    ran = manage(capsys, "copyvault")
    assert (ran.status, ran.out) == (1, "")
    assert "set the INFISICAL_ variables first" in ran.err


def test_without_an_embedded_vault_there_is_nothing_to_copy(
    settings, infisical_server, tmp_path, capsys
):
    settings.SITE = configured(infisical_server)
    wiring.reset()
    ran = manage(capsys, "copyvault")
    assert ran.status == 1
    assert f"There is no embedded vault in {tmp_path}" in ran.err
