"""/metrics for Prometheus: what it says, to whom, and that the documentation says the same."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from django.core.management import get_commands
from django.test import Client
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus
from pydantic import SecretStr

from buckets.selectors import State
from scanning import wiring
from scanning.adapters.prometheus import MOST_ENDPOINTS
from scanning.adapters.redis.stats import ClientCacheReport
from scanning.core import redis_keys
from scanning.core.metrics import counters
from scanning.core.request_costs import RequestKind
from scanning.core.scan_warnings import ScanWarning, ScanWarnings, WarningKind
from scanning.core.types import EventType
from scanning.ports import Commit, EndpointUsage, RequestReport
from tests.support import api_client, engine_buckets

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
# What Prometheus 3 sends.
BY_PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
JSON = "application/json"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False)


def families(client: Client) -> dict[str, Metric]:
    answer = client.get("/metrics?format=openmetrics")
    return {family.name: family for family in openmetrics(answer.content.decode())}


def sample(client: Client, name: str, **labels: str) -> float | None:
    """One value, by its name in queries."""
    text = client.get("/metrics?format=prometheus").content.decode()
    for family in prometheus(text):
        for found in family.samples:
            if (found.name, found.labels) == (name, labels):
                return found.value
    return None


def claim(store: redis.Redis, name: str, *, late_s: float = 0.0) -> Any:
    engine_buckets.schedule(store, engine_buckets.put(name), at=time.time() - late_s)
    [taken] = wiring.background().leases.claim_due(engine_buckets.REGION, limit=1, slots=15)
    return taken


def finish(
    taken: Any,
    *,
    error: str = "",
    error_class: str = "StorageUnavailable",
    warnings: tuple[ScanWarning, ...] = (),
) -> None:
    result = engine_buckets.result(taken.bucket, started_at=time.time(), error=error)
    result = replace(result, warnings=warnings)
    if error:
        result = replace(result, error_class=error_class)
    wiring.background().leases.finish(taken, result, next_due=time.time() + 60)


def a_busy_installation(store: redis.Redis) -> None:
    """With at least one sample of every metric but Sentinel's."""
    store.set(redis_keys.LEADER, "host:1")
    wiring.background().probes.record({}, {"unmoved": 1})
    taken = claim(store, "media-in", late_s=4.0)
    commit = Commit(
        number=1,
        notifications=[f'{{"detection_time": {time.time() - 50}}}'],
        counted={EventType.CREATED: 1, EventType.DELETED: 3},
        announced={EventType.CREATED: 1},
        lags_s=[12.0],
    )
    wiring.background().states.commit(taken, commit)
    warnings = ScanWarnings()
    warnings.add(WarningKind.ODD_ROW, "a")
    finish(taken, warnings=tuple(warnings))
    finish(claim(store, "media-out"), error="no answer")
    sent = {("media-in", kind): number for number, kind in enumerate(RequestKind, start=2)}
    usage = EndpointUsage("s3.example.com", report=RequestReport("reporter", 1, sent))
    wiring.background().endpoint_health.share_usage(usage)
    cache = {"cache_hits": 5, "cache_misses": 2, "evictions": 1, "unrecognised_bodies": 0}
    report = ClientCacheReport(wiring.background().connection)
    report.send(cache | {"total_clients": 2}, vault_age_s=30.0)


# --- formats


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("text/html,application/xhtml+xml,*/*;q=0.8", JSON),
        pytest.param("application/json, text/plain, */*", JSON, id="as axios asks"),
        ("image/png", JSON),
        ("text/plain", TEXT),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", TEXT),
        ("text/plain;version=nonsense", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text;version=nonsense", OPENMETRICS),
        pytest.param(BY_PROMETHEUS, OPENMETRICS, id="as Prometheus asks"),
    ],
)
def test_the_format_is_what_the_client_likes_best(client, store, accept, content_type):
    headers = {} if accept is None else {"accept": accept}
    answer = client.get("/metrics", headers=headers)
    assert (answer.status_code, answer["Content-Type"]) == (200, content_type)
    assert answer["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("form", "content_type"),
    [("json", JSON), ("prometheus", TEXT), ("openmetrics", OPENMETRICS)],
)
def test_the_format_can_be_named(client, store, form, content_type):
    answer = client.get(f"/metrics?format={form}", headers={"accept": "image/png"})
    assert (answer.status_code, answer["Content-Type"]) == (200, content_type)


def test_a_format_that_there_is_not_is_refused_with_those_that_there_are(client, store):
    answer = client.get("/metrics?format=xml")
    assert answer.status_code == 400
    assert api_client.error_of(answer) == "format: one of json, prometheus, openmetrics."


def test_both_texts_have_the_same_samples(client, store):
    a_busy_installation(store)
    text = client.get("/metrics?format=prometheus").content.decode()
    other = client.get("/metrics?format=openmetrics").content.decode()

    # How long ago something was differs from one answer to the next.
    def samples(found: Any) -> set[Any]:
        return {(s.name, *s.labels.items()) for family in found for s in family.samples}

    assert samples(prometheus(text)) == samples(openmetrics(other))


# --- values


def test_the_documented_metrics_are_those_exported_with_their_types_and_labels(client, store):
    a_busy_installation(store)
    documented = {
        name: (kind, set(re.findall(r"\w+", labels)))
        for name, kind, labels in re.findall(
            r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", PAGE, re.MULTILINE
        )
    }
    exported = {}
    for family in families(client).values():
        labels = {label for found in family.samples for label in found.labels} - {"le"}
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        exported[name] = (family.type, labels)
    assert exported == documented


def test_every_metric_of_a_busy_installation_has_a_sample(client, store):
    a_busy_installation(store)
    empty = {name for name, family in families(client).items() if not family.samples}
    assert empty == {"bucketwatch_sentinel_up", "bucketwatch_sentinel_replicas"}


def test_every_metric_says_what_it_is(client, store):
    assert all(family.documentation for family in families(client).values())


def test_scans_events_and_notifications_are_counted(client, store):
    a_busy_installation(store)
    assert sample(client, "bucketwatch_scans_total", result="ok") == 1
    assert sample(client, "bucketwatch_scans_total", result="failed") == 1
    assert sample(client, "bucketwatch_scan_errors_total", **{"class": "StorageUnavailable"}) == 1
    assert sample(client, "bucketwatch_objects_scanned_total") == 20
    assert sample(client, "bucketwatch_list_requests_total") == 2
    assert sample(client, "bucketwatch_segments_total", result="unchanged") == 8
    assert sample(client, "bucketwatch_events_total", type="deleted") == 3
    assert sample(client, "bucketwatch_notifications_total", type="created") == 1
    assert sample(client, "bucketwatch_notifications_total", type="deleted") == 0


def test_requests_are_counted_by_kind_and_endpoint(client, store):
    a_busy_installation(store)
    heads = [
        sample(client, "bucketwatch_head_requests_total", purpose=purpose)
        for purpose in ("metadata", "witness", "bucket")
    ]
    assert heads == [3, 4, 5]
    sent = {
        kind: sample(
            client, "bucketwatch_endpoint_requests_total", endpoint="s3.example.com", kind=kind
        )
        for kind in ("list", "head_metadata", "head_witness", "head_bucket")
    }
    assert sent == {"list": 2, "head_metadata": 3, "head_witness": 4, "head_bucket": 5}


def test_histograms_add_up(client, store):
    a_busy_installation(store)
    late = "bucketwatch_scan_lateness_seconds"
    assert sample(client, f"{late}_count") == sample(client, f"{late}_bucket", le="+Inf") == 2
    assert sample(client, f"{late}_bucket", le="2.5") == 1
    assert sample(client, f"{late}_sum") == pytest.approx(4, abs=3)
    lag = "bucketwatch_detection_lag_seconds"
    assert sample(client, f"{lag}_sum") == 12
    assert [sample(client, f"{lag}_bucket", le=le) for le in ("10.0", "15.0", "+Inf")] == [0, 1, 1]


def test_the_queue_regions_and_processes_are_measured(client, store):
    a_busy_installation(store)
    region = {"region": engine_buckets.REGION}
    assert sample(client, "bucketwatch_queue_length") == 1
    assert sample(client, "bucketwatch_queue_high_water") == 1_000_000
    assert sample(client, "bucketwatch_queue_oldest_age_seconds") == pytest.approx(50, abs=40)
    assert sample(client, "bucketwatch_region_buckets", **region) == 2
    assert sample(client, "bucketwatch_region_slots_used", **region) == 0
    assert sample(client, "bucketwatch_region_slots", **region) == 15
    assert sample(client, "bucketwatch_region_late_buckets", **region) == 0
    assert sample(client, "bucketwatch_leader") == 1
    assert sample(client, "bucketwatch_client_cache_requests_total", result="hit") == 5
    assert sample(client, "bucketwatch_vault_snapshot_age_seconds") == pytest.approx(30, abs=40)


def test_each_bucket_has_one_state(client, store):
    a_busy_installation(store)
    engine_buckets.put("paused", status="paused")
    engine_buckets.schedule(store, engine_buckets.put("waiting"), at=time.time() + 60)
    engine_buckets.schedule(store, engine_buckets.put("late"), at=time.time() - 60)
    engine_buckets.put("lost")
    engine_buckets.put("lost-and-paused", status="paused")
    for name in ("lost", "lost-and-paused"):
        store.hset(redis_keys.bucket(name), "lost_since", "1.5")
    engine_buckets.schedule(store, engine_buckets.put("held"), at=time.time() + 60)
    store.hset(redis_keys.bucket("held"), mapping={"held_since": "1.5", "scan_at": "1.5"})
    states = {state.name.lower() for state in State}
    found = {state: sample(client, "bucketwatch_buckets", state=state) for state in states}
    assert found == dict.fromkeys(states, 1) | {"paused": 2}
    assert len(families(client)["bucketwatch_buckets"].samples) == len(states)


def test_probes_are_counted_by_what_came_of_them(client, store):
    wiring.background().probes.record({}, {"moved": 2, "unmoved": 40, "failed": 1})
    wiring.background().probes.record({}, {"moved": 1})
    assert sample(client, "bucketwatch_probes_total", result="moved") == 3
    assert sample(client, "bucketwatch_probes_total", result="unmoved") == 40
    assert sample(client, "bucketwatch_probes_total", result="failed") == 1


def test_endpoints_are_told_by_state_and_the_dead_ones_by_name(client, store):
    for number in range(MOST_ENDPOINTS + 5):
        store.zadd(redis_keys.PACES, {f"s3-{number:03}.example.com": time.time()})
    dead = f"s3-{MOST_ENDPOINTS + 1:03}.example.com"
    store.set(redis_keys.pace(dead), json.dumps({"dead_since": time.time()}))
    store.hset(redis_keys.STATS, counters.THROTTLED, 7)
    assert sample(client, "bucketwatch_endpoints", state="normal") == MOST_ENDPOINTS + 4
    assert sample(client, "bucketwatch_endpoints", state="dead") == 1
    assert sample(client, "bucketwatch_endpoint_up", endpoint=dead) == 0
    assert sample(client, "bucketwatch_endpoint_up", endpoint="s3-000.example.com") == 1
    assert len(families(client)["bucketwatch_endpoint_up"].samples) == MOST_ENDPOINTS
    assert sample(client, "bucketwatch_throttled_requests_total") == 7


def test_without_redis_the_texts_say_so_and_no_more(client, redis_server):
    redis_server.stop()
    answer = client.get("/metrics?format=prometheus")
    assert answer.status_code == 200
    values = {s.name: s.value for f in prometheus(answer.content.decode()) for s in f.samples}
    assert values == {"bucketwatch_info": 1, "bucketwatch_redis_up": 0}


def test_the_version_is_told(client, store, settings):
    assert sample(client, "bucketwatch_info", version=settings.VERSION) == 1


def test_no_label_names_a_bucket(client, store):
    a_busy_installation(store)
    assert b"media-" not in client.get("/metrics?format=prometheus").content


# --- who may read them


@pytest.fixture
def with_token(settings) -> str:
    token = "a-token-of-the-test"
    settings.SITE = settings.SITE.model_copy(update={"metrics_token": SecretStr(token)})
    return token


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer ", "a-token-of-the-test", "ä"])
def test_without_the_token_nothing_is_told(client, store, with_token, given):
    headers = {} if given is None else {"authorization": given}
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
    assert "METRICS_TOKEN" in api_client.error_of(answer)
    assert with_token not in answer.content.decode()


def test_with_the_token_everything_is_told(client, store, with_token):
    headers = {"authorization": f"Bearer {with_token}"}
    assert client.get("/metrics", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("networks", "address", "status"),
    [
        ("10.0.0.0/8", "10.1.2.3", 200),
        ("10.0.0.0/8", "11.1.2.3", 403),
        ("10.0.0.0/8, fd00::/8,", "fd00::7", 200),
        ("10.0.0.0/8", "::ffff:10.1.2.3", 200),
        ("10.0.0.0/8", "", 403),
        ("", "11.1.2.3", 200),
    ],
)
def test_only_addresses_in_the_networks_are_told(
    client, store, settings, networks, address, status
):
    settings.SITE = settings.SITE.model_copy(update={"metrics_networks": networks})
    assert client.get("/metrics", REMOTE_ADDR=address).status_code == status


def test_behind_a_proxy_the_address_is_the_client_s(client, store, settings):
    given = {"metrics_networks": "10.0.0.0/8", "trusted_proxies": 1}
    settings.SITE = settings.SITE.model_copy(update=given)
    asked = {"REMOTE_ADDR": "192.0.2.1"}
    assert (
        client.get("/metrics", headers={"x-forwarded-for": "10.1.1.1"}, **asked).status_code == 200
    )
    assert (
        client.get("/metrics", headers={"x-forwarded-for": "11.1.1.1"}, **asked).status_code == 403
    )


def test_the_other_probes_ask_for_no_token(client, store, with_token):
    assert client.get("/health").status_code == 200


# --- what is shipped for Prometheus and Grafana

ALERTS = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((ROOT / "deploy/grafana/bucketwatch.json").read_text(encoding="utf-8"))
PANELS = DASHBOARD["panels"]
EXPRESSIONS = [
    *(rule["expr"] for rule in RULES),
    *(target["expr"] for panel in PANELS for target in panel["targets"]),
    *(v["definition"] for v in DASHBOARD["templating"]["list"] if v["type"] == "query"),
]


def exported(client: Client) -> dict[str, set[tuple[str, str]]]:
    """Each name that a query can use, with the labels and their values in a busy installation."""
    found: dict[str, set[tuple[str, str]]] = {}
    for family in families(client).values():
        for series in family.samples:
            found.setdefault(series.name, set()).update(series.labels.items())
        if family.type == "gauge":  # one without a sample is exported all the same
            found.setdefault(family.name, set())
    return found


def test_alerts_and_dashboard_use_only_what_is_exported(client, store):
    a_busy_installation(store)
    names = {name for text in EXPRESSIONS for name in re.findall(r"\bbucketwatch_\w+", text)}
    assert names <= exported(client).keys()


def test_alerts_and_dashboard_choose_by_labels_and_values_that_there_are(client, store):
    a_busy_installation(store)
    finish(claim(store, "busy"), error="slow down", error_class="Throttled")
    have = exported(client)
    chosen = {
        (name, label, value)
        for text in EXPRESSIONS
        for name, label, value in re.findall(r'(\w+)\{(\w+)="(\w+)"\}', text)
    }
    assert len(chosen) >= 6
    assert [c for c in chosen if (c[1], c[2]) not in have[c[0]]] == []
    grouped = {
        label
        for text in EXPRESSIONS
        for labels in re.findall(r"(?:by|on) \(([^)]*)\)", text)
        for label in re.split(r",\s*", labels)
    }
    of_samples = {label for labels in have.values() for label, _ in labels}
    assert grouped <= of_samples | {"instance"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_happened_what_it_means_and_what_to_do(rule):
    assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert re.fullmatch(r"\d+m", rule["for"])
    says = rule["annotations"]
    assert says.keys() == {"summary", "description", "action"}
    assert all(isinstance(text, str) for text in says.values())
    assert says["description"].endswith(".")
    assert says["action"].endswith(".")


def test_settings_and_commands_that_alerts_name_exist():
    text = json.dumps(RULES)
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    settings = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text))
    assert {name for name in settings if f"#{name}=" not in example} == set()
    commands = set(re.findall(r"manage\.py (\w+)", text))
    assert commands <= set(get_commands())


def test_alerts_have_names_of_their_own():
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)


def test_the_dashboard_asks_the_data_source_that_was_chosen():
    sources = {json.dumps(panel["datasource"], sort_keys=True) for panel in PANELS}
    assert sources == {'{"type": "prometheus", "uid": "${datasource}"}'}


def test_every_panel_says_what_it_shows_and_none_covers_another():
    assert all(panel["title"] and panel["description"].endswith(".") for panel in PANELS)
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in PANELS)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
