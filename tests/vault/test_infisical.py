"""Infisical as the vault: the real SDK, in its child process, against a stand-in over HTTP."""

import logging
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from bucketwatch.env import load_site
from scanning import wiring
from scanning.adapters.vault import infisical
from scanning.adapters.vault.infisical import (
    AFTER_BAD_LOGIN_S,
    InfisicalSite,
    InfisicalVault,
    open_infisical_vault,
)
from scanning.core.errors import ConfigurationError, VaultRefused, VaultUnavailable
from scanning.core.types import KeyPair
from scanning.core.vault_names import halves_of
from tests.support.infisical_server import InfisicalServer, configured, site_of
from tests.support.waiting import eventually

PAIR = KeyPair("AKIAPLAINTOSEE", "wJalrPlainToSee")
OTHER = KeyPair("AKIAOTHERTOSEE", "otherPlainToSee")


@pytest.fixture
def server(infisical_server: InfisicalServer) -> InfisicalServer:
    return infisical_server


@pytest.fixture
def site(server) -> InfisicalSite:
    return site_of(server)


@pytest.fixture
def vault(site) -> InfisicalVault:
    return InfisicalVault(site)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_names_are_those_of_existing_vaults(vault, server):
    vault.write("MEDIA_IN", PAIR)
    assert server.values == {
        "MEDIA_IN_ACCESS_KEY": PAIR.access_key,
        "MEDIA_IN_SECRET_KEY": PAIR.secret_key,
    }


def test_many_entries_are_written_and_some_are_read_back(vault, server):
    entries = {f"B{number}_WEBHOOK_CLIENT_SECRET": str(number) for number in range(25)}

    vault.write_many(entries)

    assert server.values == entries
    assert vault.names() == entries.keys()
    wanted = ["B7_WEBHOOK_CLIENT_SECRET", "GONE"]
    assert vault.read_secrets(wanted) == {"B7_WEBHOOK_CLIENT_SECRET": "7"}


def test_all_pairs_come_with_one_list_request(vault, server):
    names = [f"BUCKET.{number}" for number in range(500)]
    for half in ("ACCESS_KEY", "SECRET_KEY"):
        server.put(**{f"{name}_{half}": f"{name} {half}" for name in names})
    pairs = vault.read_all()
    assert pairs["BUCKET.7"] == KeyPair("BUCKET.7 ACCESS_KEY", "BUCKET.7 SECRET_KEY")
    assert set(pairs) == set(names)
    assert server.asked == ["POST /api/v1/auth/universal-auth/login", "GET /api/v3/secrets/raw"]


def test_a_new_secret_is_patched_then_created_then_listed(vault, server):
    vault.write_many({"A_WEBHOOK_CLIENT_SECRET": "s"})
    assert [re.sub(r" .*/", " ", request) for request in server.asked] == [
        "POST login",
        "PATCH A_WEBHOOK_CLIENT_SECRET",
        "POST A_WEBHOOK_CLIENT_SECRET",
        "GET raw",
    ]


def test_a_secret_that_somebody_creates_at_the_same_moment_is_updated(vault, server):
    server.put(A_ACCESS_KEY="theirs")
    server.fail("patch misses once")
    vault.write("A", PAIR)
    assert server.values["A_ACCESS_KEY"] == PAIR.access_key


def test_an_access_token_needs_no_log_in(site, server):
    vault = InfisicalVault(replace(site, client_id="", client_secret="", token=server.token))
    vault.write("A", PAIR)
    assert vault.read_all() == {"A": PAIR}
    assert server.logins == 0


def test_the_sdk_is_not_loaded_here(vault):
    vault.read_all()
    assert "infisical_client" not in sys.modules


def test_loading_the_child_loads_nothing_of_ours():
    program = "import runpy, sys; runpy.run_path(sys.argv[1]); print(*sys.modules)"
    child = Path(infisical.__file__).with_name("infisical_child.py")
    done = subprocess.run(
        [sys.executable, "-c", program, child], capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"django", "scanning", "pydantic", "infisical_client"})


# Every row of the table of errors, and what an operator reads.
REFUSED = {
    "locked": "Infisical has locked this identity after bad log-ins: wait, ",
    "unknown client (newer)": "Infisical does not accept INFISICAL_CLIENT_ID and INFISICAL_CLIENT",
    "moved": "there is no Infisical at http://.*: check INFISICAL_CLIENT_ID and INFISICAL_API_URL",
    "expired": "the access token has expired: renew INFISICAL_TOKEN",
    "forbidden": "does not permit this: give the identity of .* the right to read secrets in",
    "bad token": "Infisical does not accept INFISICAL_CLIENT_ID",
    "invalid": r"finds the request invalid: check INFISICAL_PROJECT_ID \(\w+\), INFISICAL_ENV",
    "invalid (newer)": "finds the request invalid: check INFISICAL_PROJECT_ID",
}
AWAY = {
    "rate limit": "Infisical at http://.* has a problem or limits our requests",
    "rate limit (newer)": "Infisical at http://.* limits our requests",
    "unavailable": "Infisical at http://.* has a problem",
    "bad gateway": "Infisical at http://.* has a problem",
    "not JSON": "What answers at http://.* does not answer as Infisical does",
    "drop": "Infisical at http://.* cannot be reached",
}
REFUSED_WRITES = {
    "read-only": "give the identity of .* the right to write secrets in environment prod",
    "approval": "asks for approval of changes here, and has filed a request: have it approved and",
    "name taken elsewhere": "refuses to write this entry as a bad request",
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_stays_until_somebody_acts_is_refused(vault, server, fault):
    server.fail(fault)
    with pytest.raises(VaultRefused, match=REFUSED[fault]):
        vault.read_all()


@pytest.mark.parametrize("fault", AWAY)
def test_what_goes_away_by_itself_is_unavailable(vault, server, fault):
    server.fail(fault)
    for ask in (
        vault.read_all,
        lambda: vault.write("A", PAIR),
        lambda: vault.delete_many(halves_of("A")),
    ):
        with pytest.raises(VaultUnavailable, match=AWAY[fault]):
            ask()
    server.fail()
    assert vault.read_all() == {}


@pytest.mark.parametrize("fault", REFUSED_WRITES)
def test_a_write_that_is_refused_says_why(vault, server, fault):
    server.fail(fault)
    with pytest.raises(VaultRefused, match=REFUSED_WRITES[fault]):
        vault.write("A", PAIR)
    assert server.values == {}


def test_a_filed_approval_is_not_asked_for_a_second_time(vault, server):
    server.fail("approval")
    with pytest.raises(VaultRefused):
        vault.write("A", PAIR)
    assert sum("A_ACCESS_KEY" in request for request in server.asked) == 1


def test_a_wrong_client_secret_is_said_without_showing_it(site):
    vault = InfisicalVault(replace(site, client_secret="wrong-but-secret"))
    with pytest.raises(VaultRefused, match="does not accept INFISICAL_CLIENT_ID and") as error:
        vault.read_all()
    assert "wrong-but-secret" not in str(error.value)


def test_an_unknown_client_is_said(site):
    with pytest.raises(VaultRefused, match="does not know this client, or there is no Infisical"):
        InfisicalVault(replace(site, client_id="nobody")).read_all()


def test_a_token_that_is_none_is_said(site):
    vault = InfisicalVault(replace(site, client_id="", client_secret="", token="tokenless"))
    with pytest.raises(VaultRefused, match="does not accept INFISICAL_TOKEN: correct"):
        vault.read_all()


def test_an_address_that_is_none_is_said(site):
    with pytest.raises(VaultRefused, match=r"INFISICAL_API_URL .* is no address"):
        InfisicalVault(replace(site, url="nonsense")).read_all()


def test_a_server_that_is_not_there_is_unavailable(vault, server):
    server.stop()
    with pytest.raises(VaultUnavailable, match="cannot be reached"):
        vault.read_all()


def test_a_missing_environment_looks_empty_and_takes_no_secret(site):
    vault = InfisicalVault(replace(site, environment="staging"))
    assert vault.read_all() == {}
    with pytest.raises(VaultRefused, match="has no environment staging in project"):
        vault.write("A", PAIR)


def test_a_server_that_forgets_what_it_took_is_found_out(vault, server):
    server.fail("forgets")
    with pytest.raises(VaultUnavailable, match="took A_ACCESS_KEY, A_SECRET_KEY and does not give"):
        vault.write("A", PAIR)


@pytest.mark.parametrize(
    "pair", [KeyPair(" a", "s"), KeyPair("a", "s\n"), KeyPair("a", ""), KeyPair("a", " ")]
)
def test_keys_that_the_server_would_trim_are_refused_before(vault, server, pair):
    with pytest.raises(VaultRefused, match=r"A_(ACCESS|SECRET)_KEY is empty or has blanks"):
        vault.write("A", pair)
    assert server.asked == []


def test_values_that_we_may_not_see_are_no_keys(vault, server):
    server.put(A_ACCESS_KEY="a", A_SECRET_KEY="s")
    server.fail("hidden")
    with pytest.raises(VaultRefused, match=r"names without values: .* right to read"):
        vault.read_all()


def test_one_hidden_value_is_named_once_and_spares_the_others(vault, server, caplog):
    server.put(A_ACCESS_KEY="a", A_SECRET_KEY="s")
    server.put(B_ACCESS_KEY="b", B_SECRET_KEY="<hidden-by-infisical>")
    for _ in range(2):
        assert vault.read_all() == {"A": KeyPair("a", "s")}
    [message] = caplog.messages
    assert message.endswith("the values of B_SECRET_KEY")


def test_empty_values_and_half_pairs_are_no_keys(vault, server):
    server.put(A_ACCESS_KEY="a", A_SECRET_KEY="", B_ACCESS_KEY="b", UNRELATED="x")
    assert vault.read_all() == {}


def test_after_a_bad_log_in_nobody_knocks_until_a_long_pause_is_over(site, server):
    clock = Clock()
    vault = InfisicalVault(replace(site, client_secret="wrong"), clock=clock)
    for ask in [vault.read_all, lambda: vault.write("A", PAIR)] * 3:
        with pytest.raises(VaultRefused, match="does not accept INFISICAL_CLIENT_ID"):
            ask()
    assert server.logins == 1
    clock.now += AFTER_BAD_LOGIN_S
    with pytest.raises(VaultRefused):
        vault.read_all()
    assert server.logins == 2


def test_a_right_that_is_missing_is_asked_for_again(vault, server):
    server.fail("forbidden")
    with pytest.raises(VaultRefused):
        vault.read_all()
    server.fail()
    assert vault.read_all() == {}


@pytest.mark.parametrize("fault", ["hang", "hang after login"])
def test_a_server_that_hangs_is_left_in_time_and_leaves_no_process(site, server, fault):
    server.fail(fault)
    with pytest.raises(VaultUnavailable, match=r"did not answer in 0\.7 s"):
        InfisicalVault(site, timeout_s=0.7).read_all()
    assert not children()


def test_a_child_whose_parent_died_ends_by_itself(site, server):
    server.fail("hang")
    program = (
        "import sys, os\n"
        "from scanning.adapters.vault.infisical import *\n"
        "url, project, id_, secret = sys.stdin.read().split()\n"
        "site = InfisicalSite(url, project, 'prod', client_id=id_, client_secret=secret)\n"
        "InfisicalVault(site, timeout_s=1).read_all()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert parent.stdin is not None
    login = f"{site.url} {site.project_id} {site.client_id} {site.client_secret}"
    parent.stdin.write(login.encode())
    parent.stdin.close()
    [orphan] = eventually(lambda: children(parent.pid))
    parent.kill()
    parent.wait()
    eventually(lambda: not running(orphan))


def test_the_child_gets_no_secret_by_arguments_or_environment(site, server, monkeypatch):
    monkeypatch.setenv("INFISICAL_CLIENT_SECRET", site.client_secret)
    monkeypatch.setenv("SECRET_KEY", "the-django-one")
    server.fail("hang")
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(InfisicalVault(site, timeout_s=2).read_all)
        [child] = eventually(children)
        shown = [Path(f"/proc/{child}/{file}").read_bytes() for file in ("cmdline", "environ")]
        assert isinstance(asking.exception(), VaultUnavailable)
    assert b"infisical_child.py" in shown[0]
    assert b"PATH=" in shown[1]
    assert b"-secret-" not in b"".join(shown)
    assert b"the-django-one" not in b"".join(shown)


def test_a_child_that_breaks_off_is_unavailable(vault, monkeypatch, tmp_path):
    broken = tmp_path / "infisical_child.py"
    broken.write_text("raise SystemExit(3)")
    monkeypatch.setattr(infisical, "_CHILD", broken)
    with pytest.raises(VaultUnavailable, match=r"broke off \(status 3\)"):
        vault.read_all()


def test_no_secret_is_in_any_message_or_representation(site, vault, server, caplog):
    caplog.set_level(logging.DEBUG)
    told = [repr(site), repr(vault), str(site), str(vault)]
    server.put(A_ACCESS_KEY=OTHER.access_key, A_SECRET_KEY=OTHER.secret_key)
    for fault in (*REFUSED, *AWAY, *REFUSED_WRITES, "hidden", "forgets", "hang"):
        server.fail(fault)
        for ask in (InfisicalVault.read_all, lambda vault: vault.write("B", PAIR)):
            try:
                told.append(repr(ask(InfisicalVault(site, timeout_s=1))))
            except (VaultRefused, VaultUnavailable) as exc:
                told += [repr(exc), repr(exc.__cause__), repr(exc.__context__)]
    everything = " ".join([*told, caplog.text])
    for secret in (site.client_secret, server.token, "PlainToSee", "PLAINTOSEE", "OTHERTOSEE"):
        assert secret not in everything


def test_the_address_may_end_as_people_write_it(server):
    for ending in ("", "/", "/api", "/api/"):
        vault = open_infisical_vault(configured(server, INFISICAL_API_URL=server.url + ending))
        assert vault.read_all() == {}


def test_infisical_is_used_when_it_is_configured(server, settings):
    settings.SITE = configured(server)
    wiring.reset()
    wiring.vault().write("A", PAIR)
    assert wiring.credentials().get("A") == PAIR
    assert not list(settings.DATA_DIR.iterdir())
    assert server.values["A_ACCESS_KEY"] == PAIR.access_key


def test_client_id_and_secret_win_over_a_token(server):
    site = configured(server, INFISICAL_TOKEN="an-old-one")
    assert open_infisical_vault(site).read_all() == {}


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("CLIENT_ID", "INFISICAL_CLIENT_SECRET and INFISICAL_PROJECT_ID"),
        ("CLIENT_SECRET PROJECT_ID", "INFISICAL_CLIENT_ID"),
        ("TOKEN", "INFISICAL_PROJECT_ID"),
        ("CLIENT_ID TOKEN PROJECT_ID", "INFISICAL_CLIENT_SECRET"),
        (
            "PROJECT_ID",
            "INFISICAL_CLIENT_ID and INFISICAL_CLIENT_SECRET (or INFISICAL_TOKEN)",
        ),
    ],
)
def test_half_a_configuration_stops_the_start_and_says_what_is_missing(given, missing):
    variables = {f"INFISICAL_{name}": "secret-value" for name in given.split()}
    with pytest.raises(ConfigurationError) as error:
        load_site({"SECRET_KEY": "x" * 50, **variables})
    assert str(error.value).startswith(f"Infisical is half configured: set {missing} too, or ")
    assert "secret-value" not in str(error.value)


def test_an_environment_alone_is_half_a_configuration_too():
    with pytest.raises(ConfigurationError, match="half configured"):
        load_site({"SECRET_KEY": "x" * 50, "INFISICAL_ENV": "dev"})


def test_an_address_without_a_scheme_stops_the_start(server):
    with pytest.raises(ConfigurationError, match=r"^INFISICAL_API_URL: must begin with https://"):
        configured(server, INFISICAL_API_URL="vault.example.com")


def children(parent: int | None = None) -> list[int]:
    """Processes of this or another parent that ask Infisical."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
            command = (status.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == (parent or os.getpid()) and b"infisical_child" in command:
            found.append(int(status.parent.name))
    return found


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
