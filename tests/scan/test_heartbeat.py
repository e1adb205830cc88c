"""Leases of running scans are kept alive, whatever goes wrong on the way."""

import threading
from collections import Counter

import pytest

from scanning.core.errors import RedisUnavailable
from scanning.core.types import BucketConfig, Claim, ScanResult
from scanning.scan.heartbeat import LeaseHeartbeat
from tests.support.waiting import eventually


class Leases:
    """Counts renewals; ``answers`` says by bucket how one ends."""

    def __init__(self) -> None:
        self.renewed: Counter[str] = Counter()
        self.answers: dict[str, bool | Exception] = {}

    def renew(self, claim: Claim) -> bool:
        self.renewed[claim.bucket] += 1
        answer = self.answers.get(claim.bucket, True)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def claim_due(self, region: str, *, limit: int, slots: int) -> list[Claim]:
        raise NotImplementedError

    def claim(self, bucket: BucketConfig, *, slots: int) -> Claim | None:
        raise NotImplementedError

    def finish(self, claim: Claim, result: ScanResult, *, next_due: float | None) -> None:
        raise NotImplementedError

    def release(self, claim: Claim) -> None:
        raise NotImplementedError

    def next_due_in_s(self, region: str) -> float | None:
        raise NotImplementedError


def claim(bucket: str) -> Claim:
    return Claim(bucket, "region", 1, 1, 0.0, None, 0.0, 0)


@pytest.fixture
def leases() -> Leases:
    return Leases()


@pytest.fixture
def heartbeat(leases) -> LeaseHeartbeat:
    return LeaseHeartbeat(leases, every_s=0.01)


def test_a_lease_is_renewed_again_and_again_while_its_scan_runs(heartbeat, leases):
    with heartbeat.keeping(claim("a")), heartbeat.keeping(claim("b")):
        eventually(lambda: leases.renewed["a"] > 2 and leases.renewed["b"] > 2)


def test_a_finished_scans_lease_is_renewed_no_more(heartbeat, leases):
    with heartbeat.keeping(claim("a")):
        eventually(lambda: leases.renewed["a"])
    with heartbeat.keeping(claim("b")):
        eventually(lambda: leases.renewed["b"] > 1)  # a renewal under way has ended by now
        after = leases.renewed["a"]
        seen = leases.renewed["b"]
        eventually(lambda: leases.renewed["b"] > seen + 2)
        assert leases.renewed["a"] == after


def test_a_scan_that_breaks_gives_up_its_renewals_too(heartbeat, leases):
    with pytest.raises(ValueError, match="broken"), heartbeat.keeping(claim("a")):
        raise ValueError("broken")
    assert heartbeat._held == set()


def test_without_scans_there_is_no_thread(heartbeat, leases):
    """A program that gives each `BucketScanner` a client of its own has as many heartbeats."""
    for _ in range(2):
        leases.renewed.clear()
        with heartbeat.keeping(claim("a")):
            eventually(lambda: leases.renewed["a"])
        eventually(lambda: heartbeat._thread is None)


def test_a_thread_that_could_not_be_started_is_started_for_the_next_scan(
    heartbeat, leases, monkeypatch
):
    """Else no lease of this process would be renewed any more."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="start new"), heartbeat.keeping(claim("a")):
            pass
    with heartbeat.keeping(claim("b")):
        eventually(lambda: leases.renewed["b"])
    assert leases.renewed["a"] == 0


def test_a_lost_lease_is_said(heartbeat, leases, caplog):
    leases.answers["a"] = False
    with heartbeat.keeping(claim("a")):
        eventually(lambda: "a: the lease is lost" in caplog.text)


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (RedisUnavailable("Redis does not answer"), "could not renew the lease: Redis does not"),
        (RuntimeError("a bug"), "an error in bucketwatch while renewing the lease"),
    ],
    ids=["Redis away", "a bug"],
)
def test_one_lease_that_cannot_be_renewed_does_not_stop_the_others(
    heartbeat, leases, caplog, problem, said
):
    leases.answers["a"] = problem
    with heartbeat.keeping(claim("a")), heartbeat.keeping(claim("b")):
        eventually(lambda: leases.renewed["a"] > 2 and leases.renewed["b"] > 2)
    assert f"a: {said}" in caplog.text
