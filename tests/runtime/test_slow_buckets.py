"""Twenty buckets of an endpoint that sends a byte a second, beside one of another endpoint."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import redis

from scanning import engine, wiring
from scanning.adapters.s3 import connections
from scanning.core import redis_keys
from scanning.core.types import BucketConfig, KeyPair
from scanning.runtime import region_task
from scanning.runtime.bucket_scanner import BucketScanner
from tests.runtime.test_region_task import with_conf
from tests.support import engine_buckets
from tests.support.engine_buckets import REGION
from tests.support.servers import TestS3Server
from tests.support.waiting import eventually

SLOW = 20
SLOTS = 8
BYTE_EVERY_S = 1.0
READ_TIMEOUT_S = 10.0  # no byte is late


class SlowServer:
    """Sends answers that have no end, byte by byte."""

    def __init__(self) -> None:
        self.closing = threading.Event()
        slow = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "1000000")
                self.end_headers()
                with suppress(OSError):  # nobody waits for the rest
                    while not slow.closing.wait(BYTE_EVERY_S):
                        self.wfile.write(b" ")
                        self.wfile.flush()
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._httpd.server_address[1]}"
        threading.Thread(target=self._httpd.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self._httpd.shutdown()
        self._httpd.server_close()


@pytest.fixture
def slow_server() -> Iterator[SlowServer]:
    server = SlowServer()
    yield server
    server.close()


class Worker:
    """Works for the region until it is stopped; `.slow` are the slow buckets being scanned."""

    def __init__(self, good: BucketConfig) -> None:
        self.good = good
        self.slow: set[str] = set()
        self.most = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        scan = BucketScanner.run

        def run(scanner: BucketScanner) -> None:
            name = scanner.bucket.name
            if name == self.good.name:
                scan(scanner)
                return
            self.slow.add(name)
            self.most = max(self.most, len(self.slow))
            scan(scanner)
            self.slow.discard(name)

        monkeypatch.setattr(BucketScanner, "run", run)
        monkeypatch.setattr(region_task, "stop_signal", self._stop)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _work(self) -> None:
        while not self._stop.is_set():
            region_task.scan_region(REGION)


@pytest.fixture
def worker(store, s3_server, slow_server, settings, monkeypatch) -> Iterator[Worker]:
    """All buckets are due, the slow ones longest. Nothing is scanned before it is started."""
    with_conf(settings, "parallel", rate_limit_per_region=SLOTS, max_workers=SLOTS)
    with_conf(settings, "storage", connect_timeout=5.0, read_timeout=READ_TIMEOUT_S)
    # As a worker has it, at a pace that a test can wait for.
    monkeypatch.setattr(region_task, "LONGEST_S", 0.5)
    monkeypatch.setattr(region_task, "PATIENCE_S", 0.2)
    monkeypatch.setattr(region_task, "TIME_BUDGET_S", 1.0)
    _add_slow(store, slow_server)
    endpoints = [url.partition("//")[2] for url in (s3_server.url, slow_server.url)]
    wiring.background().schedule.write_endpoints({REGION: endpoints})
    worker = Worker(_add_good(store, s3_server))
    yield worker
    slow_server.closing.set()
    worker.stop()


def _add_slow(store: redis.Redis, server: SlowServer) -> None:
    wiring.vault().write("SLOW", KeyPair("id", "secret"))
    for number in range(SLOW):
        bucket = engine_buckets.put(
            f"slow-{number:02d}", endpoint=server.url, credential="SLOW", interval=1
        )
        engine_buckets.schedule(store, bucket, at=1.0)


def _add_good(store: redis.Redis, s3_server: TestS3Server) -> BucketConfig:
    name = s3_server.bucket()
    s3_server.put(name, "key")
    bucket = engine_buckets.put_real(s3_server, name, interval=1)
    engine_buckets.schedule(store, bucket, at=2.0)
    return bucket


def scanned_again(store: redis.Redis, bucket: BucketConfig, times: int) -> bool:
    """Wait until so many scans of a bucket have ended from now on."""
    history = redis_keys.history(bucket.name)
    before = store.llen(history)
    return eventually(lambda: store.llen(history) >= before + times)


def test_the_bucket_of_another_endpoint_is_scanned_again_and_again(store, worker, monkeypatch):
    """Nothing breaks the slow answers off: they take what they may have of the region's slots."""
    worker.start(monkeypatch)
    eventually(lambda: len(worker.slow) == SLOTS - 2)
    assert scanned_again(store, worker.good, 5)
    # No slow scan has ended meanwhile: a quarter of the slots stays for the other endpoint.
    assert (len(worker.slow), worker.most) == (SLOTS - 2, SLOTS - 2)


def test_a_slow_endpoints_buckets_are_parked_and_do_not_take_the_slots_again(
    store, worker, monkeypatch
):
    broken_off_after_s = 0.5
    monkeypatch.setattr(connections, "LONGEST_ANSWER_S", broken_off_after_s - READ_TIMEOUT_S)
    worker.start(monkeypatch)
    eventually(lambda: [load.state for load in engine.endpoint_loads()].count("dead") == 1)
    eventually(lambda: len(worker.slow) <= 1)
    worker.most = 0
    assert scanned_again(store, worker.good, 5)
    # Probes alone, one of which may end while the next begins: the others wait without a slot.
    assert worker.most <= 2 < SLOTS - 2
