"""The audit's verdicts as people read them, and as one JSON object."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from worker.cli.audit import audit_document, print_audit
from worker.core.audit_report import AuditReport
from worker.core.audited_topics import audited_topics
from worker.kafka_io.audit import Audit
from worker.settings import Settings, WorkerTopics

TOPICS = WorkerTopics(("texts.in",), "texts.labelled", "texts.dead")
REPORT = AuditReport(
    consumed=30, published=30, dead_lettered=0, missing=0, duplicated=0, reordered=0, orphans=0,
    pending=0, unjudged={}, examples={},
)  # fmt: skip
PLAIN = Audit(TOPICS, audited_topics(TOPICS), REPORT, {}, {}, {}, {"texts.labelled": 30}, ())
ROUTED = replace(
    PLAIN,
    report=replace(
        REPORT,
        published=20,
        filtered=7,
        dead_lettered=3,
        copies={"texts.alerts": 4},
        refused_copies=1,
        uncopied=2,
        examples={"uncopied": ["texts.in/0/4 to texts.alerts by route alerts"]},
    ),
    reasons={"not_json": 3},
    filtered={"route spam": 7},
    digests={"0a1b": 7},
    published_to={"texts.labelled": 15, "texts.angry": 5},
)


def printed(audit: Audit, capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_audit(audit, audit.report.breaches(None))
    return capsys.readouterr().out.splitlines()


def test_without_routes_no_line_is_about_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(PLAIN, capsys) == [
        "30 input records: 30 labelled, 0 dead letters, 0 without an outcome",
        " holds  every record has an outcome",
        " holds  no record has two outcomes",
        " holds  outcomes keep the order of their partition",
        " holds  every outcome has a record",
    ]


def test_routes_are_told_by_topic_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """A missing copy breaks a promise."""
    assert printed(ROUTED, capsys)[:10] == [
        "30 input records: 20 labelled, 7 filtered, 3 dead letters, 0 without an outcome",
        "  to texts.labelled 15",
        "  to texts.angry 5",
        "  filtered by route spam 7",
        "  not_json 3",
        "  copies in texts.alerts 4",
        "  1 more were refused by their topic; dead letters tell of them",
        " holds  every record has an outcome",
        "BROKEN  every copy is there                         2 uncopied",
        "          texts.in/0/4 to texts.alerts by route alerts",
    ]


def test_the_document_has_every_count() -> None:
    """Programs read these names."""
    document = audit_document(Settings(), ROUTED, ["uncopied"])
    json.dumps(document)
    assert document["broken"] == ["uncopied"]
    assert (document["filtered"], document["filtered_by"]) == (7, {"route spam": 7})
    assert document["filtered_settings"] == {"0a1b": 7}
    assert document["published_to"] == {"texts.labelled": 15, "texts.angry": 5}
    assert (document["copies"], document["refused_copies"]) == ({"texts.alerts": 4}, 1)
    assert (document["uncopied"], document["outputs"]) == (2, ["texts.labelled"])
