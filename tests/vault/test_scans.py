"""Scans with keys from Infisical: rotated under them, half rotated, and with Infisical away."""

import queue
import time

import pytest

from scanning import wiring
from scanning.adapters.s3.storage import S3ClientCache
from scanning.core.types import KeyPair, ScanResult
from scanning.runtime.bucket_scanner import BucketScanner
from tests.support.infisical_server import configured
from tests.support.servers import LOCAL

OLD = KeyPair("OLDACCESSKEY", "old-secret-key")


class Clock:
    later_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.later_s


@pytest.fixture
def clock(infisical_server, settings, monkeypatch) -> Clock:
    """The snapshot's."""
    settings.SITE = configured(infisical_server)
    wiring.reset()
    clock = Clock()
    monkeypatch.setattr(wiring.credentials(), "_clock", clock)
    return clock


@pytest.fixture
def right(s3_server) -> KeyPair:
    return KeyPair(s3_server.access_key, s3_server.secret_key)


@pytest.fixture
def scan(redis_server, s3_server, clock):
    name = s3_server.bucket()
    document = {"name": name, "endpoint": s3_server.url, "bucketwatch": {"credential": "A"}}
    clients = S3ClientCache(LOCAL)

    def run() -> ScanResult:
        results: queue.Queue[ScanResult] = queue.Queue()
        with redis_server.client() as client:
            BucketScanner(document, client, wiring.conf(), results, clients).run()
        return results.get_nowait()

    yield run
    clients.clear_cache()


def test_keys_that_were_rotated_under_a_scan_are_fetched_at_once(scan, infisical_server, right):
    wiring.vault().write("A", OLD)
    assert wiring.credentials().get("A") == OLD
    wiring.vault().write("A", right)
    assert scan().ok


def test_half_a_rotation_costs_one_scan_and_heals(scan, infisical_server, clock, right, caplog):
    wiring.vault().write("A", OLD)
    wiring.credentials().get("A")
    infisical_server.put(A_ACCESS_KEY=right.access_key)
    assert scan().error_class == "CredentialsRejected"
    infisical_server.put(A_SECRET_KEY=right.secret_key)
    clock.later_s += 10
    assert scan().ok
    assert right.secret_key not in caplog.text
    assert OLD.secret_key not in caplog.text


def test_scans_go_on_while_infisical_is_away(scan, infisical_server, clock, right, caplog):
    wiring.vault().write("A", right)
    assert scan().ok
    infisical_server.stop()
    clock.later_s += 3600
    assert scan().ok
    assert [text for text in caplog.messages if text.startswith("The vault cannot be read")]


def test_without_any_keys_an_absent_infisical_is_the_scans_error(scan, infisical_server, right):
    infisical_server.stop()
    result = scan()
    assert result.error_class == "VaultUnavailable"
    assert "cannot be reached" in result.error
    assert not result.permanent


def test_a_refused_log_in_is_the_scans_error_and_stays(scan, infisical_server, right):
    infisical_server.fail("locked")
    for _ in range(3):
        result = scan()
        assert result.error_class == "VaultRefused"
        assert result.permanent
    assert infisical_server.logins == 1
