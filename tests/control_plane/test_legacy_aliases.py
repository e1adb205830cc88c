"""`manage.py writealiases`: keys under the names that the older monitor looks for."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from buckets import services
from scanning import wiring
from scanning.core.types import KeyPair
from scanning.core.vault_names import halves_of

pytestmark = pytest.mark.django_db(transaction=True)

PAIR = KeyPair("AKIA", "secret")


@pytest.fixture(autouse=True)
def _buckets(redis_server) -> None:
    """One bucket with keys of its own, two that share others."""
    services.add_bucket(name="own", region="r", access_key="A", secret_key="S")
    shared = services.add_credential(name="shared", access_key="AKIA", secret_key="secret")
    for name in ("media-in", "media-out"):
        services.add_bucket(name=name, region="r", credential=shared)


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("writealiases", *arguments, stdout=output, stderr=output)
    return output.getvalue()


def test_shared_keys_are_written_under_each_bucket_s_name_and_removed_again():
    output = run()
    assert "media-in: MEDIA_IN_ACCESS_KEY, MEDIA_IN_SECRET_KEY" in output
    assert "secret" not in output
    pairs = wiring.vault().read_all()
    assert pairs == {
        "OWN": KeyPair("A", "S"),
        "SHARED": PAIR,
        "MEDIA_IN": PAIR,
        "MEDIA_OUT": PAIR,
    }

    run("--remove")
    assert wiring.vault().read_all() == {"OWN": KeyPair("A", "S"), "SHARED": PAIR}


def test_a_dry_run_writes_nothing():
    assert "MEDIA_OUT_SECRET_KEY" in run("--dry-run")
    assert wiring.vault().read_all().keys() == {"OWN", "SHARED"}


def test_a_name_that_another_credential_has_is_never_written_over():
    services.add_credential(name="media-in", access_key="other", secret_key="pair")
    with pytest.raises(CommandError, match="Not all buckets"):
        run()
    assert wiring.vault().read_all()["MEDIA_IN"] == KeyPair("other", "pair")
    assert wiring.vault().read_all()["MEDIA_OUT"] == PAIR


def test_keys_that_the_vault_lacks_are_named():
    wiring.vault().delete_many(halves_of("SHARED"))
    output = StringIO()
    with pytest.raises(CommandError, match="Not all buckets"):
        call_command("writealiases", stdout=output, stderr=output)
    assert "The vault lacks SHARED_ACCESS_KEY or SHARED_SECRET_KEY." in output.getvalue()
