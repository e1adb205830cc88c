"""`make bench` works: at sizes that say nothing about speed, and without asking for any."""

import http.client
from urllib.parse import urlencode

import pytest

from bench.measuring import GROUPS, TINY, Bench
from bench.objects import clustered, make_rows, overwritten, scattered
from bench.product import Product
from bench.report import WHAT, page
from bench.server import BenchServer
from bench.targets import TARGETS, line
from scanning.core.listing import Columns, read_listing, read_rows


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


def test_the_server_shows_what_it_is_told(server):
    server.show(objects=150, version="clustered")
    assert ask(server).rows == 150
    server.show(objects=TINY.objects, version="scattered")
    changed = ask(server).columns().etags
    server.show(objects=TINY.objects)
    assert ask(server).columns().etags != changed


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_each_group_of_figures_can_be_measured(group, server, redis_server, monkeypatch):
    if group.__name__ == "listings":
        pytest.importorskip("obstore")
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    figures = group(Bench(server, Product(server.url), TINY))
    assert figures
    assert all(value > 0 for name, value in figures.items() if "growth" not in name)


def test_every_target_is_explained_and_its_line_says_whether_it_is_met():
    assert WHAT.keys() == TARGETS.keys()
    assert line("unchanged_vs_boto3", 71) == "unchanged_vs_boto3 71.00  target >= 70: met"
    assert line("redis_bytes_per_object", 61).endswith("target <= 60: MISSED")
    assert line("boto3_objects_per_cpu_s", 12345.6) == "boto3_objects_per_cpu_s 12346"


def test_the_page_says_what_was_printed_and_refuses_quick_figures():
    printed = ["# 2 cores, Python 3.11.7", *(line(name, 10) for name in TARGETS), "other 12345"]
    text = page(printed)
    assert "2 cores, Python 3.11.7" in text
    assert "| `unchanged_vs_boto3` |" in text
    assert "10 (missed) | >= 70 |" in text
    assert "| `other` | 12,345 |" in text
    with pytest.raises(ValueError, match="quick"):
        page(["# 2 cores, QUICK: figures are only for trying"])
