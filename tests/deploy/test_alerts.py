"""Each alert fires while its fault lasts, is silent before and after, and so are the others.

Prometheus' own tool plays hours of made-up series through the rules, where promtool is on PATH. What
a real worker under real faults does is for `test_prometheus.py`, and all of it for `alarms.py`.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.project import ALERTS, ROOT, Project
from tests.deploy.test_board import NAME, unknown
from worker.settings import options

PROMTOOL = shutil.which("promtool")
STEP = 30  # seconds between samples, and between evaluations
BEFORE, FAULT, AFTER = 40, 40, 60  # samples: twenty minutes, twenty, and thirty
WORKER = 'job="streamlabel",instance="a:9100"'

Series = Mapping[str, str]


def gauge(before: float, fault: float, after: float | None = None) -> str:
    """Values in promtool's notation: how it was, how it is while the fault lasts, and then."""
    values = (before, fault, before if after is None else after)
    lengths = (BEFORE, FAULT, AFTER)
    return " ".join(f"{v}+0x{n - 1}" for v, n in zip(values, lengths, strict=True))


def counter(before: float, fault: float) -> str:
    """Rises by so much a step, at first and at last, and while the fault lasts."""
    parts, value = [], 0.0
    for rise, length in ((before, BEFORE), (fault, FAULT), (before, AFTER)):
        parts.append(f"{value}+{rise}x{length - 1}")
        value += rise * length
    return " ".join(parts)


def ramp(rise: float) -> str:
    """Nothing, then rising by so much a step, then nothing."""
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
    "streamlabel_open_transaction_seconds|partition=0": gauge(1, 1),
    "streamlabel_joining_seconds": gauge(0, 0),
    "streamlabel_label_drift": gauge(0.01, 0.01),
    "streamlabel_confidence_drift": gauge(0.01, 0.01),
}
HALF, QUARTER = FAULT // 2, FAULT // 4
STARTS = f"1000+0x{BEFORE + HALF - 1} 2000+0x{QUARTER - 1} 3000+0x{QUARTER + AFTER - 1}"
# Each fault, and those alone that must fire for it.
FAULTS: dict[str, tuple[Series, set[str]]] = {
    "a worker is down": ({"up": gauge(1, 0)}, {"StreamlabelDown"}),
    "all targets are gone": (
        {"up": f"1+0x{BEFORE - 1} stale _x{FAULT - 1} 1+0x{AFTER - 1}"},
        {"StreamlabelMissing"},
    ),
    "it stalls": ({"streamlabel_live": gauge(1, 0)}, {"StreamlabelStalled"}),
    "it is not ready": ({"streamlabel_ready": gauge(1, 0)}, {"StreamlabelNotReady"}),
    "it falls behind": (
        {"streamlabel_time_lag_seconds": ramp(10), "streamlabel_offset_lag|partition=0": ramp(500)},
        {"StreamlabelLagGrowing"},
    ),
    "one record in ten is dead": (
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
    "it starts twice": ({"process_start_time_seconds": STARTS}, {"StreamlabelRestarting"}),
    "a process of its pool ends": (
        {"streamlabel_process_restarts_total": f"0+0x{BEFORE + HALF - 1} 1+0x{HALF + AFTER - 1}"},
        {"StreamlabelRestarting"},
    ),
    "records are gone": (
        {"streamlabel_offsets_skipped_total": counter(0, 1)},
        {"StreamlabelRecordsSkipped"},
    ),
    "another producer's transaction hangs": (
        {"streamlabel_open_transaction_seconds|partition=0": gauge(1, 100)},
        {"StreamlabelInputHeldUp"},
    ),
    "the group waits for a member": (
        {"streamlabel_joining_seconds": gauge(0, 100)},
        {"StreamlabelJoining"},
    ),
    "labels shift": ({"streamlabel_label_drift": gauge(0.01, 0.3)}, {"StreamlabelLabelDrift"}),
    "confidences shift": (
        {"streamlabel_confidence_drift": gauge(0.01, 0.3)},
        {"StreamlabelConfidenceDrift"},
    ),
}  # fmt: skip
# What looks like a fault and is none.
NO_FAULTS: dict[str, Series] = {
    "all is well": {},
    "nobody sends anything": {name: counter(0, 0) for name in HEALTHY if "_total" in name or "_bucket" in name},
    "a deployment": {"process_start_time_seconds": gauge(1000, 2000, 2000)},
    "a backlog that shrinks": {
        "streamlabel_time_lag_seconds": f"4000-20x{BEFORE + FAULT + AFTER - 1}",
        "streamlabel_offset_lag|partition=0": gauge(10_000, 10_000),
    },
    "the last record was late, and nothing waits": {
        "streamlabel_time_lag_seconds": gauge(0, 400),
        "streamlabel_offset_lag|partition=0": gauge(0, 0),
    },
    "labels that vary": {"streamlabel_label_drift": gauge(0.01, 0.2)},
}  # fmt: skip


def seconds_at(share: float) -> str:
    """A moment in the fault: 0 its begin, 1 its end."""
    return f"{int((BEFORE + share * FAULT) * STEP)}s"


def played(series: Series, expected: Mapping[str, set[str]]) -> dict[str, Any]:
    """A test for promtool: who fires at which moment."""
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
    """`name|label=value` as a series of one worker."""
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
    """Silent before, and at the first sample of what may pass; firing at the end; silent after."""
    series, alerts = FAULTS[name]
    last = f"{(BEFORE + FAULT + AFTER - 1) * STEP}s"
    return played(series, {seconds_at(-0.01): set(), seconds_at(0.98): alerts, last: set()})


needs_promtool = pytest.mark.skipif(not PROMTOOL, reason="promtool is not on PATH")


@pytest.fixture(scope="module")
def project() -> Project:
    return Project(ROOT)


def test_every_alert_asks_for_what_the_worker_exports(project: Project) -> None:
    assert unknown((rule["alert"], rule["expr"]) for rule in project.alerts) == []


def test_every_alert_says_how_bad_it_is_what_it_is_and_what_to_do(project: Project) -> None:
    for rule in project.alerts:
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert rule["annotations"]["summary"]
        assert len(rule["annotations"]["runbook"]) > 100


def test_runbooks_name_settings_and_metrics_that_there_are(project: Project) -> None:
    """A dotted or underscored word is a setting, a reason, a stage's metric; or it is explained."""
    paths = {option.path for option in options()}
    sections = {path.partition(".")[0] for path in paths if "." in path}
    told = " ".join(rule["annotations"]["runbook"] for rule in project.alerts)
    dotted = set(re.findall(r"\b[a-z_]+\.[a-z_]+\b(?!\.)", told))
    assert {word for word in dotted if word.partition(".")[0] in sections} <= paths
    assert len(dotted & paths) > 5
    names = [("runbook", name) for name, _ in NAME.findall(told) if name != "up"]
    assert names
    assert unknown(names) == []


def test_every_alert_has_a_fault_that_it_is_tried_on(project: Project) -> None:
    tried = set[str]().union(*(alerts for _, alerts in FAULTS.values()))
    assert tried == {rule["alert"] for rule in project.alerts}


@needs_promtool
def test_prometheus_takes_the_rules() -> None:
    command = [str(PROMTOOL), "check", "rules", "--lint=all", "--lint-fatal", str(ROOT / ALERTS)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_each_fault_fires_its_alert_alone_and_its_end_clears_it(tmp_path: Path) -> None:
    code, said = run([fault(name) for name in FAULTS], ROOT / ALERTS, tmp_path)
    assert code == 0, said


@needs_promtool
def test_nothing_fires_without_a_fault(tmp_path: Path) -> None:
    """At any minute."""
    minutes = [f"{n}m" for n in range(0, (BEFORE + FAULT + AFTER) * STEP // 60, 3)]
    tests = [played(series, {minute: set() for minute in minutes}) for series in NO_FAULTS.values()]
    code, said = run(tests, ROOT / ALERTS, tmp_path)
    assert code == 0, said


@needs_promtool
def test_what_passes_at_once_wakes_nobody(project: Project, tmp_path: Path) -> None:
    """Half of its `for` into the fault, an alert is silent still."""
    waits = {rule["alert"]: rule["for"] for rule in project.alerts if "for" in rule}
    tests = []
    for series, alerts in FAULTS.values():
        for alert in alerts & waits.keys():
            half = int(waits[alert].removesuffix("m")) * 30
            tests.append(played(series, {f"{BEFORE * STEP + half}s": set()}))
    assert len(tests) == len(waits)
    code, said = run(tests, ROOT / ALERTS, tmp_path)
    assert code == 0, said


@needs_promtool
def test_an_alert_that_never_fires_is_noticed(project: Project, tmp_path: Path) -> None:
    for rule in project.alerts:
        deaf = rule | {"expr": f"({rule['expr']}) and on () vector(0) > 1"}
        rules = tmp_path / "alerts.json"
        rules.write_text(json.dumps({"groups": [{"name": "deaf", "rules": [deaf]}]}))
        tests = [fault(name) for name, (_, alerts) in FAULTS.items() if rule["alert"] in alerts]
        code, said = run(tests, rules, tmp_path)
        assert (code, "got: nil" in said) == (1, True), said
