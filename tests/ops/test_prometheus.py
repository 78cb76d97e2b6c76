"""A real Prometheus scrapes a loaded server: queries whose answers are known, and every query of
deploy/ against the metrics that there are."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import promql
import pytest
import wire
import yaml
from pictures import photo, png
from processes import Process, answers, free_ports
from server_fixtures import Server, eventually

ROOT = Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/tipserve.json"
WIDTH = 48

# What a load is made of; small, and every number another.
CLASSES = 3
EXAMPLES = 12  # embeddings
GOOD = 23
BROKEN = 5
EMBEDDINGS = 271  # over 256 items a version's drift is in the metrics
UNARY = 7
ABSENT = 4
LATE = 6
CODES = {code.name for code in grpc.StatusCode}


@dataclass
class Prometheus:
    """Prometheus with its HTTP API."""

    address: str

    def query(self, query: str) -> list[dict]:
        """An instant query's result."""
        arguments = urllib.parse.urlencode({"query": query})
        with urllib.request.urlopen(f"{self.address}/api/v1/query?{arguments}", timeout=30) as page:
            answer = json.load(page)
        assert answer["status"] == "success", answer
        return answer["data"]["result"]

    def value(self, query: str) -> float | None:
        """The single value of a query; None without one."""
        result = self.query(query)
        assert len(result) <= 1, (query, result)
        return float(result[0]["value"][1]) if result else None

    def api(self, path: str) -> dict:
        """Another page of the API."""
        with urllib.request.urlopen(f"{self.address}/api/v1/{path}", timeout=30) as page:
            return json.load(page)["data"]


@pytest.fixture(scope="module")
def server(tiny_bundle, tmp_path_factory):
    """A server of the small CLIP."""
    store = tmp_path_factory.mktemp("scraped") / "store"
    server = Server(tiny_bundle, store, "--dtype", "float32")
    yield server
    server.close()


@pytest.fixture(scope="module")
def prometheus(program, server, tmp_path_factory):
    """Prometheus with the project's alert rules, scraping the server every second."""
    folder = tmp_path_factory.mktemp("prometheus")
    [port] = free_ports(1)
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {"job_name": "tipserve", "static_configs": [{"targets": [server.probes]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        program("prometheus"),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    address = f"http://127.0.0.1:{port}"
    with Process(folder / "log", command, lambda: answers(f"{address}/-/ready")):
        yield Prometheus(address)


@pytest.fixture(scope="module")
def loaded(server, prometheus):
    """A load whose every count is known, seen by Prometheus before and after."""
    eventually(lambda: prometheus.value("up") == 1)
    # Two scrapes of the quiet server, so that rates have where to start from.
    eventually(lambda: prometheus.value("count_over_time(tipserve_batches_total[1m])") >= 2)
    chance = np.random.default_rng()
    centres = chance.normal(size=(CLASSES, WIDTH))
    labels = np.arange(EXAMPLES) % CLASSES
    points = centres[labels] + 0.1 * chance.normal(size=(EXAMPLES, WIDTH))
    spec = wire.cache.CacheSpec(
        cache_id="pets", classes=wire.classes([f"class {i}" for i in range(CLASSES)])
    )
    server.api.create(spec, wire.examples_of(points, labels))
    items = [wire.item(f"good{i}", wire.encoded(png(photo(chance)))) for i in range(GOOD)]
    items += [wire.item(f"broken{i}", wire.encoded(b"no picture")) for i in range(BROKEN)]
    items += [
        wire.item(f"embedding{i}", wire.embedding(chance.normal(size=WIDTH)))
        for i in range(EMBEDDINGS)
    ]
    chance.shuffle(items)
    results = list(server.api.stream("pets", items))
    assert sum(result.HasField("error") for result in results) == BROKEN
    for _ in range(UNARY):
        server.api.one("pets", wire.embedding(chance.normal(size=WIDTH)))
    for _ in range(ABSENT):
        with pytest.raises(grpc.RpcError) as raised:
            server.api.one("absent", wire.embedding(chance.normal(size=WIDTH)))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    late = [wire.item(f"late{i}", wire.encoded(png(photo(chance))), 1e-9) for i in range(LATE)]
    assert all(result.HasField("error") for result in server.api.stream("pets", late))
    eventually(
        lambda: prometheus.value('tipserve_requests_total{method="ClassifyStream",code="OK"}') == 2
    )
    # A second scrape after the last change: rates over the load are above zero now.
    before = prometheus.value("count_over_time(tipserve_batches_total[10m])")
    eventually(
        lambda: prometheus.value("count_over_time(tipserve_batches_total[10m])") >= before + 2
    )
    return server


def test_prometheus_takes_every_line(prometheus, loaded):
    [target] = prometheus.api("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    lines = [line for line in loaded.http("/metrics")[1].splitlines() if line]
    samples = sum(not line.startswith("#") for line in lines)
    assert prometheus.value("scrape_samples_scraped") == samples


ANSWERED = EMBEDDINGS + GOOD + UNARY
KNOWN = {
    'tipserve_requests_total{method="CreateCache",code="OK"}': 1,
    'tipserve_requests_total{method="Classify",code="OK"}': UNARY,
    'tipserve_requests_total{method="Classify",code="NOT_FOUND"}': ABSENT,
    'sum by (method) (tipserve_requests_total{method="Classify"})': UNARY + ABSENT,
    'tipserve_items_total{outcome="ok"}': ANSWERED,
    'tipserve_items_total{outcome="error"}': BROKEN + LATE,
    "tipserve_decode_seconds_count": GOOD,
    "tipserve_decode_queue_seconds_count": GOOD,
    "tipserve_item_seconds_count": ANSWERED,
    "tipserve_queue_seconds_count": ANSWERED,
    "tipserve_batch_size_pictures_sum": GOOD,
    "tipserve_batch_size_pictures_count - tipserve_batches_total": 0,
    "tipserve_encode_seconds_count - tipserve_batches_total": 0,
    'tipserve_batch_size_pictures_bucket{le="256"} - ignoring (le) tipserve_batches_total': 0,
    # Too late: refused if the wait is predicted, given up at admission if it is not.
    "sum(tipserve_refused_items_total) + sum(tipserve_dropped_items_total)": LATE,
    'tipserve_refused_items_total{reason="deadline"}'
    ' + ignoring (reason) tipserve_dropped_items_total{reason="expired_at_door"}': LATE,
    'tipserve_dropped_items_total{reason="cancelled"}': 0,
    "count(tipserve_requests_total)": len(wire.METHODS) * len(CODES),
    "count by (method) (tipserve_requests_total) != 17": None,
    'tipserve_request_seconds_count{method="Classify"}': UNARY + ABSENT,
    "sum(tipserve_request_seconds_count) - sum(tipserve_requests_total)": 0,
    'sum(tipserve_requests_total{method="other"})': 0,
    "tipserve_build_info": 1,
    "tipserve_queue_limit_items": 8192,
    "tipserve_queue_limit_bytes": 2**30,
    "tipserve_resident_cache_limit_bytes": 2**32,
    "tipserve_embedding_cache_limit_bytes": 0,
    "tipserve_batch_limit_pictures": 16,
    "tipserve_in_flight_items / tipserve_queue_limit_items": 0,
    "sum(tipserve_finetune_runs)": 0,
    "tipserve_finetune_runs_started_total": 0,
    "sum(tipserve_finetune_runs_ended_total)": 0,
    "tipserve_finetune_epoch_seconds_count": 0,
    "tipserve_cache_load_failures_total": 0,
    "sum(tipserve_store_requests_total)": 0,
    "process_resident_memory_bytes > bool 0": 1,
    "process_open_fds < bool process_max_fds": 1,
    "time() - process_start_time_seconds > bool 0": 1,
    "tipserve_versions_created_total": 1,
    "tipserve_resident_caches": 1,
    "tipserve_cache_evictions_total": 0,
    "tipserve_finetune_epochs_total": 0,
    "tipserve_in_flight_items": 0,
    "tipserve_in_flight_bytes": 0,
    "sum(tipserve_queue_depth_items)": 0,
    "tipserve_cache_loads_total - tipserve_cache_load_seconds_count": 0,
    'tipserve_item_seconds_bucket{le="+Inf"} - ignoring (le) tipserve_item_seconds_count': 0,
}


@pytest.mark.parametrize("query", KNOWN)
def test_a_known_load_gives_the_known_answer(prometheus, loaded, query):
    assert prometheus.value(query) == KNOWN[query]


def test_quantities_that_bound_each_other(prometheus, loaded):
    for part, whole in (
        # A batch is at least one picture, and a stage no longer than the whole.
        ("tipserve_batches_total", "tipserve_batch_size_pictures_sum"),
        ("tipserve_queue_seconds_sum", "tipserve_item_seconds_sum"),
    ):
        assert prometheus.value(f"{part} <= {whole}") > 0
    assert prometheus.value("histogram_quantile(1, tipserve_batch_size_pictures_bucket)") <= 16
    assert prometheus.value("tipserve_resident_cache_bytes") >= CLASSES * WIDTH * 4


def test_many_caches_make_no_new_series(prometheus, loaded, name):
    series = 'count({__name__=~"tipserve_.+"})'
    before = prometheus.value(series)
    made = prometheus.value("tipserve_versions_created_total")
    chance = np.random.default_rng()
    for number in range(20):
        points = chance.normal(size=(4, WIDTH))
        spec = wire.cache.CacheSpec(
            cache_id=f"{name}-{number}", classes=wire.classes(["one", "other"])
        )
        loaded.api.create(spec, wire.examples_of(points, [0, 1, 0, 1]))
        loaded.api.one(f"{name}-{number}", wire.embedding(points[0]))
    eventually(lambda: prometheus.value("tipserve_versions_created_total") == made + 20)
    assert prometheus.value(series) == before


def test_no_alert_fires_on_a_healthy_server(prometheus, loaded):
    rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == {rule["alert"] for rule in alert_rules()}
    eventually(lambda: prometheus.api("rules")["groups"][0]["lastEvaluation"] > "0002")
    assert [rule["lastError"] for rule in rules if rule["health"] == "err"] == []
    assert [
        alert for alert in prometheus.api("alerts")["alerts"] if alert["state"] == "firing"
    ] == []


# ---- promtool ----------------------------------------------------------------


def promtool(program, *arguments, given: str | None = None, folder: Path | None = None) -> str:
    """Runs promtool, which must be content; what it said."""
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)],
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_has_nothing_to_say_about_the_metrics(program, loaded):
    assert promtool(program, "check", "metrics", given=loaded.http("/metrics")[1]) == ""


def test_the_rules_are_valid(program):
    promtool(program, "check", "rules", "--lint=all", "--lint-fatal", ALERTS)
    promtool(program, "check", "config", "--syntax-only", ALERTS.with_name("prometheus.yml"))


def test_every_rule_fires_when_it_shall_and_only_then(program):
    tests = ALERTS.with_name("alerts_test.yml")
    promtool(program, "test", "rules", tests.name, folder=tests.parent)
    cases = [
        case
        for test in yaml.safe_load(tests.read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    names = {rule["alert"] for rule in alert_rules()}
    assert (fires, silent) == (names, names)


def test_every_alert_is_explained():
    documented = (ROOT / "docs/operations.md").read_text()
    for rule in alert_rules():
        assert f"`{rule['alert']}`" in documented, rule["alert"]


# ---- the queries of deploy/ ------------------------------------------------


def alert_rules() -> list[dict]:
    """The alert rules, as they are in the file."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict]:
    """The dashboard's panels."""
    return [
        panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"
    ]


def filled_in(query: str) -> str:
    """A dashboard's query as Grafana sends it, with all jobs and servers chosen."""
    for variable, value in (
        ("$__rate_interval", "1m"),
        ("$__range", "1h"),
        ("$job", ".+"),
        ("$instance", ".+"),
    ):
        query = query.replace(variable, value)
    return query


QUERIES = {f"alert {rule['alert']}": rule["expr"] for rule in alert_rules()} | {
    f"panel {panel['title']} ({panel['type']}) {target['refId']}": filled_in(target["expr"])
    for panel in panels()
    for target in panel["targets"]
}


@pytest.mark.parametrize("where", QUERIES)
def test_every_query_reads_metrics_that_there_are(prometheus, loaded, where):
    exported = promql.Exported.of_text(loaded.http("/metrics")[1])
    assert promql.problems(QUERIES[where], exported, {}) == []
    prometheus.query(QUERIES[where])  # and Prometheus understands it


@pytest.mark.parametrize("where", [where for where in QUERIES if where.startswith("panel")])
def test_every_panel_shows_something(prometheus, loaded, where):
    assert prometheus.query(QUERIES[where]), QUERIES[where]


def test_the_check_of_queries_finds_what_is_wrong(loaded):
    exported = promql.Exported.of_text(loaded.http("/metrics")[1])
    for query, problem in {
        "rate(tipserve_item_total[5m])": "no metric tipserve_item_total",
        'tipserve_items_total{result="ok"}': "no label result",
        'tipserve_items_total{outcome="okay"}': "never has outcome='okay'",
        'tipserve_items_total{outcome=~"ok|err"}': "never has outcome='err'",
        "sum by (method) (tipserve_items_total)": "groups by method",
        "tipserve_batches_total / on (stage) tipserve_queue_depth_items": "joins on stage",
        "histogram_quantile(0.5, sum(tipserve_item_seconds_bucket))": "without le",
        "sum(tipserve_batches_total": "does not parse",
    }.items():
        found = promql.problems(query, exported, {})
        assert any(problem in one for one in found), (query, found)


def test_the_dashboard_is_whole():
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    cells = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in cells, f"{panel['title']} lies over another panel"
                cells.add((x, y))
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        for target in panel["targets"]:
            used = set(re.findall(r"\$\{?(\w+)", target["expr"])) - {"__rate_interval", "__range"}
            assert used <= variables, target["expr"]


def test_grafana_variables_ask_for_labels_that_there_are(prometheus, loaded):
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] != "query":
            continue
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
        selector, label = filled_in(asked[1]), asked[2]
        assert prometheus.query(f"count by ({label}) ({selector})"), variable["definition"]
