"""`make bench` works: at sizes that say nothing about speed, and without asking for any."""

import http.client
import os
import subprocess
import sys
from urllib.parse import urlencode

import pytest

from bench import fleet, hints, looks, schedules
from bench.installation import ROOT
from bench.measuring import GROUPS, Bench, Sizes
from bench.objects import clustered, make_rows, overwritten, scattered
from bench.product import Product
from bench.report import WHAT, page
from bench.server import BenchServer
from bench.targets import TARGETS, line
from scanning.core.listing.body import Columns, read_listing, read_rows
from scanning.core.schedule import PollingIntervals

TINY = Sizes(
    objects=2_000,
    slow=2_000,
    per_object=1_000,
    stored=2_000,
    stored_with_strings=2_000,
    small=1_000,
    large=3_000,
    rounds=1,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    sizes = {"objects": TINY.large, "changing": TINY.objects}
    with BenchServer(tmp_path_factory.mktemp("bench"), **sizes) as running:
        yield running


def ask(server: BenchServer, **asked: object):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    query = {"list-type": 2, "encoding-type": "url"} | {
        name.replace("_", "-"): value for name, value in asked.items()
    }
    connection.request("GET", "/bench?" + urlencode(query))
    body = connection.getresponse().read()
    connection.close()
    return read_listing(body)


def columns(rows) -> Columns:
    found = read_rows(rows.raw, url_encoded=True)
    assert found is not None
    return found


def test_rows_are_in_order_and_the_same_every_time():
    rows = columns(make_rows(500))
    assert rows.keys == sorted(set(rows.keys))
    assert len(rows) == 500
    assert rows == columns(make_rows(500))
    assert rows.keys[:100] == columns(make_rows(100)).keys


@pytest.mark.parametrize("which", [scattered, clustered])
def test_one_object_in_a_hundred_is_overwritten(which):
    rows = make_rows(2000)
    before, after = columns(rows), columns(overwritten(rows, which(2000)))
    pairs = zip(before.etags, after.etags, strict=True)
    assert [old != new for old, new in pairs].count(True) == 20
    assert before.keys == after.keys


def test_the_server_lists_from_any_key_in_pages_of_any_size(server):
    server.show(objects=TINY.large)
    rows = columns(make_rows(TINY.large))
    first = ask(server, max_keys=700)
    assert (first.rows, first.is_truncated) == (700, True)
    second = ask(server, start_after=first.last_key)
    assert second.columns().keys == rows.keys[700:1700]
    between = ask(server, start_after=rows.keys[10] + "x", max_keys=1)
    assert between.columns().keys == [rows.keys[11]]
    assert not ask(server, start_after=rows.keys[-2]).is_truncated
    assert ask(server, start_after="zzz").rows == 0


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_each_group_of_figures_can_be_measured(group, server, redis_server, monkeypatch):
    if group.__name__ == "listings":
        pytest.importorskip("obstore")
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    figures = group(Bench(server, Product(server.url), TINY))
    assert figures
    assert {n: value for n, value in figures.items() if value <= 0 and "growth" not in n} == {}


def run_bench(**environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench"],
        cwd=ROOT,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_benchmark_runs_in_a_process_of_its_own_with_settings_of_its_own():
    done = run_bench(ONLY="lanes", QUICK="1", REDIS_URL="redis://127.0.0.1:1/0")
    assert "lanes_10_speedup_at_100ms" in done.stdout, done.stderr
    assert "target" not in done.stdout  # a quick run is not judged
    assert done.returncode == 0


def test_a_group_that_is_not_there_is_named():
    done = run_bench(ONLY="speed")
    assert done.returncode == 2
    assert "speed" in done.stdout
    assert "fleet" in done.stdout


def test_a_small_fleet_is_scanned_and_looked_at(tmp_path):
    size = fleet.Size(buckets=6, regions=2, objects=100, interval_s=1, measured_s=3.0)
    figures = fleet.measure(tmp_path, size)
    assert figures["fleet_scans_per_due_scan"] > 0
    assert figures["fleet_6_lateness_p99_s"] >= figures["fleet_6_lateness_p50_s"]
    assert figures["fleet_rss_mb"] > 0
    assert figures["fleet_cpu_share"] > 0
    assert figures["fleet_processes"] > 4


def test_hints_are_timed_from_the_request_to_the_queue(tmp_path):
    figures = hints.measure(tmp_path, hints.Size(hints=2))
    assert 0 < figures["hint_to_queue_p50_s"] <= figures["hint_to_queue_p95_s"]


def test_growing_intervals_save_requests_of_quiet_buckets_and_spread_what_is_left():
    fixed = schedules.poll(schedules.Fleet(), PollingIntervals(60.0))
    adaptive = schedules.poll(schedules.Fleet(), PollingIntervals(60.0, 900.0))
    assert adaptive.scans <= 0.2 * fixed.scans
    assert adaptive.lag_p95_s <= 1.05 * fixed.lag_p95_s
    assert fixed.busiest_minute == 1000
    assert adaptive.busiest_minute <= 0.2 * fixed.busiest_minute


def test_requests_that_follow_changes_are_counted_and_changes_timed(tmp_path):
    size = looks.Size(objects=3000, measured_s=6.0, change_every_s=3.0, probe_interval_s=1)
    figures = looks.measure(tmp_path, size)
    assert figures["probe_requests_per_minute"] > 0
    assert figures["look_without_totals_requests_per_minute"] > 0
    assert figures["probe_announced_p95_s"] > 0
    assert figures["look_without_totals_announced_p95_s"] > 0


def test_every_target_is_explained_and_its_line_says_whether_it_is_met():
    assert WHAT.keys() == TARGETS.keys()
    speed, size = TARGETS["unchanged_vs_boto3"], TARGETS["redis_bytes_per_object"]
    assert line("a", 71, speed) == "a 71.00  target >= 70: met"
    assert line("a", 61, size).endswith("target <= 60: MISSED")
    assert line("a", 12345.6, None) == "a 12346"


def test_the_page_says_what_was_printed_and_refuses_quick_figures():
    figures = [line(name, 10, target) for name, target in TARGETS.items()]
    printed = ["# 2 cores, Python 3.11.7", *figures, "other 12345"]
    text = page(printed)
    assert "2 cores, Python 3.11.7" in text
    assert "| `unchanged_vs_boto3` |" in text
    assert "10 (missed) | >= 70 |" in text
    assert "| `other` | 12,345 |" in text
    with pytest.raises(ValueError, match="quick"):
        page(["# 2 cores, QUICK: figures are only for trying"])
