"""The Grafana board and Prometheus' configuration use only series that the worker exports.

If promtool is on PATH, it parses every query; names and labels are checked without it. Planted
faults show that each check can fail.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

from tests.deploy.project import PROVISIONING, ROOT, SCRAPING, Project
from worker.metrics import Metrics, PoolMetrics

PROMTOOL = shutil.which("promtool")
ORDER = [
    "Goals", "Lag", "Stages", "Batches", "Backpressure and rebalances", "Dead letters", "Labels",
    "Decisions", "Models", "Routes", "Several models", "Second model (shadow)", "Process",
]  # fmt: skip
SCRAPED = {"job", "instance"}  # labels that Prometheus adds to every series
# Labels that a pool of processes adds.
IN_A_POOL = {"streamlabel_state": {"slot"}, "streamlabel_shadow_state": {"slot"}}
MODEL = {"model", "revision", "engine", "dtype", "device"}
INFO_LABELS = {
    "streamlabel_model_info": MODEL,
    "streamlabel_each_model_info": MODEL | {"name"},
    "streamlabel_shadow_model_info": MODEL | {"comparison", "shadow", "weights"},
    "streamlabel_build_info": {"version"},
    "streamlabel_worker_info": {
        "group", "input", "output", "dead_letters", "delivery", "version", "host",
    },
}  # fmt: skip
CHOICES = ("job", "instance", "group", "model", "topic")  # labels that a variable of the board has
ALERT_LABELS = {"alertname", "alertstate", "severity", "group", "topic"}
NAME = re.compile(r"\b((?:streamlabel|process|python)_\w+|up|ALERTS)\b(\{[^}]*\})?")


def exported() -> dict[str, set[str]]:
    """Return every series that a worker exports, with its labels."""
    metrics = Metrics()
    catalogues = (metrics, PoolMetrics())
    own = [
        c
        for metrics in catalogues
        for c in vars(metrics).values()
        if isinstance(c, MetricWrapperBase)
    ]
    labels = {c._name: set(c._labelnames) | IN_A_POOL.get(c._name, set()) for c in own}
    # Series that Prometheus itself adds: one for each scrape, one for each alert.
    series: dict[str, set[str]] = {"up": set(), "ALERTS": ALERT_LABELS}
    for family in (family for metrics in catalogues for family in metrics.registry.collect()):
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        for suffix in suffixes.get(family.type, ["_info"] if family.type == "info" else [""]):
            name = family.name + suffix
            le = {"le"} if suffix == "_bucket" else set()
            series[name] = labels.get(family.name, set()) | INFO_LABELS.get(name, set()) | le
    return series


def unknown(queries: Iterable[tuple[str, str]]) -> list[str]:
    """Return the series and labels that queries name and no worker exports."""
    series, faults = exported(), []
    for where, query in queries:
        used = NAME.findall(query)
        names = [name for name, _ in used]
        if not names:
            faults.append(f"{where}: names no series")
        faults += [f"{where}: {name} is not exported" for name in names if name not in series]
        common = SCRAPED.union(*(series.get(name, set()) for name in names))
        grouped = [
            part.strip() for by in re.findall(r"\bby \(([^)]*)\)", query) for part in by.split(",")
        ]
        matched = [label for _, m in used for label in re.findall(r"(\w+)\s*[=!]", m)]
        faults += [f"{where}: no label {label}" for label in {*grouped, *matched} - common]
    return faults


def legends(project: Project) -> list[str]:
    """Return the legends that name a label which their query drops."""
    return [
        f"{panel['title']}: {label}"
        for panel in project.panels
        for target in panel["targets"]
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
        if not re.search(rf"by \([^)]*\b{label}\b", target["expr"])
    ]


@pytest.fixture(scope="module")
def project() -> Project:
    return Project(ROOT)


def test_queries_use_series_and_labels_that_the_worker_exports(project: Project) -> None:
    """Legends use labels that their query keeps."""
    assert unknown(project.queries()) == []
    assert legends(project) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("streamlabel_records_published_total", "streamlabel_records_published"),
        ("streamlabel_end_to_end_seconds_bucket", "streamlabel_end_to_end_bucket"),
        ("by (reason)", "by (why)"),
        ("{job=~", "{task=~"),
        ("streamlabel_model_info", "streamlabel_model"),
        ("device) (", "gpu) ("),
    ],
)
def test_a_wrong_name_is_found(project: Project, old: str, new: str) -> None:
    """Such as a series without its suffix, or an unknown label."""
    queries = list(project.queries())
    assert any(old in query for _, query in queries)
    assert unknown((where, query.replace(old, new)) for where, query in queries)


def test_every_metric_of_the_worker_is_on_the_board(project: Project) -> None:
    shown = {name for _, query in project.queries() for name, _ in NAME.findall(query)}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    own = {
        re.sub(r"_(bucket|sum|count)$", "", n) for n in exported() if n.startswith("streamlabel")
    }
    assert own - families == set()


def test_rows_are_in_the_order_of_an_investigation(project: Project) -> None:
    """The goals come first, then the rows that help to find out why one is missed."""
    rows = [panel["title"] for panel in project.board["panels"] if panel["type"] == "row"]
    assert rows == ORDER


def test_panels_fit_the_grid_and_do_not_overlap(project: Project) -> None:
    """The grid has 24 columns, and every id is unique."""
    cells: set[tuple[int, int]] = set()
    for panel in project.board["panels"]:
        g = panel["gridPos"]
        own = {
            (x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])
        }
        assert not own & cells, panel["title"]
        assert g["x"] + g["w"] <= 24
        cells |= own
    ids = [panel["id"] for panel in project.board["panels"]]
    assert len(set(ids)) == len(ids)


def test_every_panel_is_described(project: Project) -> None:
    """And has a title of its own."""
    titles = [panel["title"] for panel in project.panels]
    assert len(set(titles)) == len(titles)
    assert all(panel["description"] for panel in project.panels)


def test_the_data_source_is_a_choice(project: Project) -> None:
    """No uid is fixed; Grafana's default is chosen first, which Compose's Grafana has.

    Grafana fills in `__inputs` where a person imports a board, and nowhere else.
    """
    assert set(_sources(project.board)) == {("prometheus", "${datasource}")}
    assert "__inputs" not in project.board
    variable = project.variables["datasource"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    assert variable["current"]["value"] == "default"
    (source,) = yaml.safe_load(project.text(f"{PROVISIONING}/datasources/prometheus.yml"))[
        "datasources"
    ]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)


def _sources(part: object) -> Iterator[tuple[str, str]]:
    """Yield type and uid of each data source that a part of the board names."""
    if isinstance(part, dict):
        if "datasource" in part:
            yield part["datasource"]["type"], part["datasource"]["uid"]
        part = list(part.values())
    if isinstance(part, list):
        for item in part:
            yield from _sources(item)


def unchosen(queries: Iterable[tuple[str, str]]) -> list[str]:
    """Return the series that a query does not narrow to what is chosen."""
    series = exported()
    return [
        f"{where}: {name} without {choice}"
        for where, query in queries
        for name, matchers in NAME.findall(query)
        for choice in CHOICES
        if choice in SCRAPED | series[name] and f'{choice}=~"${choice}' not in matchers
    ]


def test_every_query_is_narrowed_by_the_choices_that_its_series_has(project: Project) -> None:
    """No query names a job or an instance of its own."""
    assert unchosen(project.expressions) == []
    assert not any(re.search(r'(job|instance|group)="', query) for _, query in project.expressions)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_query_without_a_choice_is_found(project: Project, choice: str) -> None:
    queries = [(where, query.replace(f"${choice}", "x")) for where, query in project.expressions]
    assert unchosen(queries)


def test_each_variable_offers_the_values_of_a_label_that_is_exported(project: Project) -> None:
    """And narrows its values by variables that stand before it."""
    assert set(project.variables) >= {"datasource", *CHOICES}
    series, before = exported(), set[str]()
    for name, selector, label in offered(project):
        assert set(re.findall(r"\$(\w+)", selector)) <= before, name
        before.add(name)
        names = [n for n in series if re.match(named_in(selector) + "$", n)]
        assert names, name
        assert label in SCRAPED.union(*(series[n] for n in names)), name


def offered(project: Project) -> Iterator[tuple[str, str, str]]:
    """Yield name, selector and label of each variable whose values come from Prometheus."""
    for name, variable in project.variables.items():
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert found, name
            yield name, found[1], found[2]


def named_in(selector: str) -> str:
    """Return the expression for the names of a selector's series."""
    found = re.search(r'__name__=~"([^"]+)"', selector)
    return found[1] if found else selector.partition("{")[0]


def test_state_names_are_those_in_the_metrics_help(project: Project) -> None:
    """The values of a state are mapped to the names that its help text lists."""
    panels = [p for p in project.panels if p["type"] == "state-timeline"]
    metrics = Metrics()
    for panel, metric in zip(panels, (metrics.state, metrics.shadow_state), strict=True):
        (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
        names = {number: option["text"] for number, option in mapping["options"].items()}
        assert names == dict(re.findall(r"(\d) (\w+)", metric._documentation)), panel["title"]


@pytest.mark.skipif(not PROMTOOL, reason="promtool is not on PATH")
def test_prometheus_accepts_every_query_and_the_configuration(
    project: Project, tmp_path: Path
) -> None:
    """And refuses a broken query."""
    queries = [query for _, query in project.queries()]
    assert _promtool("rules", _rules(tmp_path / "good.yml", queries)) == 0
    assert _promtool("rules", _rules(tmp_path / "bad.yml", [*queries, "sum(rate(x[1m])"])) == 1
    assert _promtool("config", ROOT / SCRAPING) == 0


def _rules(path: Path, queries: list[str]) -> Path:
    rules = [{"record": f"board:query{i}", "expr": query} for i, query in enumerate(queries)]
    path.write_text(json.dumps({"groups": [{"name": "board", "rules": rules}]}))
    return path


def _promtool(kind: str, path: Path) -> int:
    command = [str(PROMTOOL), "check", kind, str(path)]
    return subprocess.run(command, check=False, capture_output=True).returncode
