"""Each alert fires during its own fault, and at no other time.

If promtool is on PATH, it runs the rules over hours of synthetic series. `test_prometheus.py` tests
some alerts with a real worker and real faults, and `alarms.py` all of them.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.project import ALERTS, ROOT, SCRAPING, Project
from tests.deploy.test_board import NAME, unknown
from worker.settings import options

PROMTOOL = shutil.which("promtool")
STEP = 30  # seconds between samples, and between evaluations
BEFORE, FAULT, AFTER = 40, 40, 60  # samples: twenty minutes, twenty, and thirty
WORKER = 'job="streamlabel",instance="a:9100"'

Series = Mapping[str, str]


def gauge(before: float, fault: float, after: float | None = None) -> str:
    """Return values in promtool's notation: before, during and after the fault."""
    values = (before, fault, before if after is None else after)
    lengths = (BEFORE, FAULT, AFTER)
    return " ".join(f"{v}+0x{n - 1}" for v, n in zip(values, lengths, strict=True))


def counter(before: float, fault: float) -> str:
    """Return a counter that rises by `before` a step, and by `fault` during the fault."""
    parts, value = [], 0.0
    for rise, length in ((before, BEFORE), (fault, FAULT), (before, AFTER)):
        parts.append(f"{value}+{rise}x{length - 1}")
        value += rise * length
    return " ".join(parts)


def ramp(rise: float) -> str:
    """Return values of 0, which rise by `rise` a step during the fault."""
    return f"0+0x{BEFORE - 1} 0+{rise}x{FAULT - 1} 0+0x{AFTER - 1}"


HEALTHY: Series = {
    "up": gauge(1, 1),
    "streamlabel_live": gauge(1, 1),
    "streamlabel_ready": gauge(1, 1),
    "streamlabel_time_lag_seconds": gauge(0.1, 0.1),
    "streamlabel_offset_lag|partition=0": gauge(10, 10),
    "streamlabel_records_published_total": counter(100, 100),
    "streamlabel_records_dead_lettered_total|reason=not_json": counter(1, 1),
    "streamlabel_end_to_end_seconds_bucket|le=5.0": counter(100, 100),
    "streamlabel_end_to_end_seconds_bucket|le=10.0": counter(101, 101),
    "streamlabel_end_to_end_seconds_bucket|le=+Inf": counter(101, 101),
    "process_start_time_seconds": gauge(1000, 1000),
    "streamlabel_process_restarts_total": counter(0, 0),
    "streamlabel_offsets_skipped_total": counter(0, 0),
    "streamlabel_copies_lost_total|route=angry": counter(0, 0),
    "streamlabel_filtered_total|reason=route": counter(1, 1),
    "streamlabel_open_transaction_seconds|partition=0": gauge(1, 1),
    "streamlabel_joining_seconds": gauge(0, 0),
    "streamlabel_worker_info|group=group": gauge(1, 1),
    "streamlabel_model_changes_total|outcome=changed": counter(0, 0),
    "streamlabel_model_changes_total|outcome=failed": counter(0, 0),
    "streamlabel_label_drift": gauge(0.01, 0.01),
    "streamlabel_confidence_drift": gauge(0.01, 0.01),
}
HALF, QUARTER = FAULT // 2, FAULT // 4
STARTS = f"1000+0x{BEFORE + HALF - 1} 2000+0x{QUARTER - 1} 3000+0x{QUARTER + AFTER - 1}"
# Each fault, and the only alerts that must fire during it.
FAULTS: dict[str, tuple[Series, set[str]]] = {
    "a worker is down": ({"up": gauge(1, 0)}, {"StreamlabelDown"}),
    "no target is left": (
        {"up": f"1+0x{BEFORE - 1} stale _x{FAULT - 1} 1+0x{AFTER - 1}"},
        {"StreamlabelMissing"},
    ),
    "it stalls": ({"streamlabel_live": gauge(1, 0)}, {"StreamlabelStalled"}),
    "it is not ready": ({"streamlabel_ready": gauge(1, 0)}, {"StreamlabelNotReady"}),
    "it falls behind": (
        {"streamlabel_time_lag_seconds": ramp(10), "streamlabel_offset_lag|partition=0": ramp(500)},
        {"StreamlabelLagGrowing"},
    ),
    "one record in ten is a dead letter": (
        {"streamlabel_records_dead_lettered_total|reason=not_json": counter(1, 11)},
        {"StreamlabelDeadLetters"},
    ),
    "two in a hundred are slow": (
        {
            "streamlabel_end_to_end_seconds_bucket|le=5.0": counter(100, 98),
            "streamlabel_end_to_end_seconds_bucket|le=10.0": counter(101, 100),
        },
        {"StreamlabelSlow"},
    ),
    "it restarts twice": ({"process_start_time_seconds": STARTS}, {"StreamlabelRestarting"}),
    "a process of its pool ends": (
        {"streamlabel_process_restarts_total": f"0+0x{BEFORE + HALF - 1} 1+0x{HALF + AFTER - 1}"},
        {"StreamlabelRestarting"},
    ),
    "records were deleted unread": (
        {"streamlabel_offsets_skipped_total": counter(0, 1)},
        {"StreamlabelRecordsSkipped"},
    ),
    "a topic refuses copies": (
        {"streamlabel_copies_lost_total|route=angry": counter(0, 1)},
        {"StreamlabelCopiesLost"},
    ),
    "every record is filtered": (
        {
            "streamlabel_records_published_total": counter(100, 0),
            "streamlabel_records_dead_lettered_total|reason=not_json": counter(1, 0),
            "streamlabel_filtered_total|reason=route": counter(1, 100),
            "streamlabel_end_to_end_seconds_bucket|le=5.0": counter(100, 0),
            "streamlabel_end_to_end_seconds_bucket|le=10.0": counter(101, 0),
            "streamlabel_end_to_end_seconds_bucket|le=+Inf": counter(101, 0),
        },
        {"StreamlabelAllFiltered"},
    ),
    "another producer's transaction hangs": (
        {"streamlabel_open_transaction_seconds|partition=0": gauge(1, 100)},
        {"StreamlabelInputHeldUp"},
    ),
    "the group waits for a member": (
        {"streamlabel_joining_seconds": gauge(0, 100)},
        {"StreamlabelJoining"},
    ),
    "another model can't be loaded": (
        {"streamlabel_model_changes_total|outcome=failed": counter(0, 1)},
        {"StreamlabelModelNotChanged"},
    ),
    "labels shift": ({"streamlabel_label_drift": gauge(0.01, 0.3)}, {"StreamlabelLabelDrift"}),
    "confidences shift": (
        {"streamlabel_confidence_drift": gauge(0.01, 0.3)},
        {"StreamlabelConfidenceDrift"},
    ),
}  # fmt: skip
# Series that look like a fault, for which no alert must fire.
NO_FAULTS: dict[str, Series] = {
    "all is well": {},
    "no records come in": {name: counter(0, 0) for name in HEALTHY if "_total" in name or "_bucket" in name},
    "a deployment": {"process_start_time_seconds": gauge(1000, 2000, 2000)},
    "a backlog that shrinks": {
        "streamlabel_time_lag_seconds": f"4000-20x{BEFORE + FAULT + AFTER - 1}",
        "streamlabel_offset_lag|partition=0": gauge(10_000, 10_000),
    },
    "the last record was late, without a backlog": {
        "streamlabel_time_lag_seconds": gauge(0, 400),
        "streamlabel_offset_lag|partition=0": gauge(0, 0),
    },
    "another model takes over": {"streamlabel_model_changes_total|outcome=changed": counter(0, 1)},
    "labels that vary": {"streamlabel_label_drift": gauge(0.01, 0.2)},
}  # fmt: skip


def seconds_at(share: float) -> str:
    """Return a moment of the fault: 0 is its start, 1 its end."""
    return f"{int((BEFORE + share * FAULT) * STEP)}s"


def played(series: Series, expected: Mapping[str, set[str]]) -> dict[str, Any]:
    """Return a test for promtool: the alerts that fire at each moment."""
    return {
        "interval": f"{STEP}s",
        "input_series": [
            {"series": _selector(name), "values": values}
            for name, values in (dict(HEALTHY) | dict(series)).items()
        ],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": moment,
                "exp_samples": [
                    {"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(alerts)
                ],
            }
            for moment, alerts in expected.items()
        ],
    }


def _selector(name: str) -> str:
    """Return `name|label=value` as a series of one worker."""
    name, _, label = name.partition("|")
    extra = re.sub(r"^(\w+)=(.*)$", r',\1="\2"', label)
    return f"{name}{{{WORKER}{extra}}}"


def run(tests: list[dict[str, Any]], rules: Path, scratch: Path) -> tuple[int, str]:
    path = scratch / "tests.json"
    document = {"rule_files": [str(rules)], "evaluation_interval": f"{STEP}s", "tests": tests}
    path.write_text(json.dumps(document))
    command = [str(PROMTOOL), "test", "rules", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def fault(name: str) -> dict[str, Any]:
    """Return a test: no alert before the fault, the expected ones at its end, none long after."""
    series, alerts = FAULTS[name]
    last = f"{(BEFORE + FAULT + AFTER - 1) * STEP}s"
    return played(series, {seconds_at(-0.01): set(), seconds_at(0.98): alerts, last: set()})


needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="promtool is not on PATH")


@pytest.fixture(scope="module")
def project() -> Project:
    return Project(ROOT)


def test_alerts_use_series_that_the_worker_exports(project: Project) -> None:
    assert unknown((rule["alert"], rule["expr"]) for rule in project.alerts) == []


def test_every_alert_has_a_severity_a_summary_and_a_description(project: Project) -> None:
    for rule in project.alerts:
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert rule["annotations"]["summary"]
        assert len(rule["annotations"]["description"]) > 100


def test_every_alert_leads_to_its_entry_of_the_runbook(project: Project) -> None:
    """The page and the anchor exist, at the address of the documentation."""
    urls = tomllib.loads(project.text("pyproject.toml"))["project"]["urls"]
    anchors = set(re.findall(r"\{ #(\w+) \}", project.text("docs/runbook.md")))
    for rule in project.alerts:
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == f"{urls['Documentation']}runbook/"
        assert anchor == rule["alert"].lower()
        assert anchor in anchors


def test_the_jobs_in_rules_are_scraped(project: Project) -> None:
    """Every `job="..."` in a rule is a job of Prometheus' configuration."""
    jobs = {job["job_name"] for job in yaml.safe_load(project.text(SCRAPING))["scrape_configs"]}
    used = {job for rule in project.alerts for job in re.findall(r'job="(\w+)"', rule["expr"])}
    assert used == jobs


def test_descriptions_name_existing_settings_and_metrics(project: Project) -> None:
    """A dotted word in a description is a setting, and a series is one that the worker exports."""
    paths = {option.path for option in options()}
    sections = {path.partition(".")[0] for path in paths if "." in path}
    texts = " ".join(rule["annotations"]["description"] for rule in project.alerts)
    dotted = set(re.findall(r"\b[a-z_]+\.[a-z_]+\b(?!\.)", texts))
    assert {word for word in dotted if word.partition(".")[0] in sections} <= paths
    assert len(dotted & paths) > 5
    names = [("description", name) for name, _ in NAME.findall(texts) if name != "up"]
    assert names
    assert unknown(names) == []


def test_every_alert_is_tested_by_a_fault(project: Project) -> None:
    tried = set[str]().union(*(alerts for _, alerts in FAULTS.values()))
    assert tried == {rule["alert"] for rule in project.alerts}


@needs_promtool
def test_prometheus_accepts_the_rules() -> None:
    command = [str(PROMTOOL), "check", "rules", "--lint=all", "--lint-fatal", str(ROOT / ALERTS)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_each_fault_fires_its_own_alerts_until_it_ends(tmp_path: Path) -> None:
    code, output = run([fault(name) for name in FAULTS], ROOT / ALERTS, tmp_path)
    assert code == 0, output


@needs_promtool
def test_no_alert_fires_without_a_fault(tmp_path: Path) -> None:
    """At no minute."""
    minutes = [f"{n}m" for n in range(0, (BEFORE + FAULT + AFTER) * STEP // 60, 3)]
    tests = [played(series, {minute: set() for minute in minutes}) for series in NO_FAULTS.values()]
    code, output = run(tests, ROOT / ALERTS, tmp_path)
    assert code == 0, output


@needs_promtool
def test_a_short_fault_fires_no_alert(project: Project, tmp_path: Path) -> None:
    """Half of its `for` into the fault, an alert does not fire yet."""
    waits = {rule["alert"]: rule["for"] for rule in project.alerts if "for" in rule}
    tests = []
    for series, alerts in FAULTS.values():
        for alert in alerts & waits.keys():
            half = int(waits[alert].removesuffix("m")) * 30
            tests.append(played(series, {f"{BEFORE * STEP + half}s": set()}))
    assert len(tests) == len(waits)
    code, output = run(tests, ROOT / ALERTS, tmp_path)
    assert code == 0, output


@needs_promtool
def test_an_alert_that_cannot_fire_fails_its_test(project: Project, tmp_path: Path) -> None:
    for rule in project.alerts:
        disabled = rule | {"expr": f"({rule['expr']}) and on () vector(0) > 1"}
        rules = tmp_path / "alerts.json"
        rules.write_text(json.dumps({"groups": [{"name": "disabled", "rules": [disabled]}]}))
        tests = [fault(name) for name, (_, alerts) in FAULTS.items() if rule["alert"] in alerts]
        code, output = run(tests, rules, tmp_path)
        assert (code, "got: nil" in output) == (1, True), output
