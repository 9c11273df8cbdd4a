"""A worker with routes that is killed, a pool of them, a replay and a backfill: the audit holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Broker, Topics
from tests.integration.test_routes import BOTH
from tests.integration.test_topics import flags
from tests.support.feeding import Feed
from tests.support.workers import WorkerProcess, audit, lag, produce, read, wait_until
from worker.cli.main import main
from worker.core.route_headers import FILTERED_HEADER, ROUTE_HEADER

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


class Site:
    """Routes of a test, as flags, and its input."""

    def __init__(self, broker: Broker, topics: Topics) -> None:
        self.broker, self.topics = broker, topics
        self.all, self.notes = f"{topics.output}.all", f"{topics.output}.notes"
        routes = (
            f'[{{name = "copy", path = "n", exists = true, topic = "{self.all}", also = true}}, '
            '{name = "spam", path = "spam", in = true, drop = true}, '
            f'{{name = "by", topic = "{topics.output}.{{label}}"}}]'
        )
        self.flags = ("--routes", routes, "--output-filtered-topic", self.notes)

    def produce(self, start: int, number: int) -> None:
        records = []
        for n in range(start, start + number):
            fields: dict[str, Any] = {"id": n, "text": f"what a {'bad' if n % 3 else 'fine'} day"}
            fields |= {"n": n} if n % 2 else {}
            fields |= {"spam": True} if n % 5 == 0 else {}
            records.append((b"k", json.dumps(fields).encode()))
        produce(self.broker, self.topics.input, records)

    def worker(self, folder: Path, name: str, *more: str) -> WorkerProcess:
        log = folder / f"{name}.log"
        return WorkerProcess(
            *(self.broker, self.topics, "bundled", log),
            *("--create-topics", "--batch-max-records", "64", *self.flags, *more),
        )

    def audit(self, *more: str) -> dict[str, Any]:
        return audit(self.broker, self.topics, *self.flags, *more)

    def main_outcomes(self) -> int:
        names = [self.notes, *(f"{self.topics.output}.{one}" for one in ("NEGATIVE", "POSITIVE"))]
        return sum(len(read(self.broker, name, self.topics.partitions)) for name in names)


@BOTH
def test_a_killed_worker_loses_no_outcome_and_no_copy(
    broker: Broker, topics: Topics, tmp_path: Path, delivery: str
) -> None:
    site = Site(broker, topics)
    soon = ("--kafka-session-timeout", "6")
    worker = site.worker(tmp_path, "first", "--delivery", delivery, *soon)
    try:
        worker.wait_ready()
        with Feed(site.produce) as feed:
            wait_until(lambda: worker.metric("streamlabel_copies_total") > 200, what="it labels")
            worker.kill()
            feed.wait_for_more()
        number = feed.sent
        assert site.main_outcomes() < number, "it was killed in the middle"
        worker = site.worker(tmp_path, "second", "--delivery", delivery)
        worker.wait_ready()
        wait_until(lambda: lag(broker, topics) == 0, 120, "all have an outcome")
        assert worker.stop() == 0, worker.log.read_text()
    finally:
        worker.kill()
    verdict = site.audit("--delivery", delivery)
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["missing"], verdict["reordered"]) == (number, 0, 0)
    if delivery == "exactly_once":
        assert verdict["duplicated"] == 0, verdict
        assert site.main_outcomes() == number
        copies = read(broker, site.all, topics.partitions)
        assert len(copies) == number // 2


def test_a_pool_routes_and_a_replay_and_a_backfill_do_too(
    broker: Broker, topics: Topics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(broker, topics)
    number = 300
    site.produce(0, number)
    produce(broker, topics.input, [(b"k", b"no JSON")])
    worker = site.worker(tmp_path, "pool", "--processes", "2")
    try:
        worker.wait_ready()
        wait_until(lambda: site.main_outcomes() == number, what="all have an outcome")
        filtered = "streamlabel_filtered_total"
        wait_until(lambda: worker.metric(filtered) == number // 5, what="the notes are counted")
        assert worker.stop() == 0, worker.log.read_text()
    finally:
        worker.kill()
    assert site.audit()["holds"]
    capsys.readouterr()
    own = [*flags(broker, topics), "--model", "bundled", *site.flags]
    replay = ["dead-letters", "replay", "--label", "--json", *own]
    assert main([one for one in replay if one not in (topics.group, "--group-id")]) == 0
    backfill = ["--group-id", f"{topics.group}-again", "--from", "earliest", "--to", "latest"]
    plain = [one for one in own if one not in ("--group-id", topics.group)]
    assert main(["backfill", *plain, *backfill]) == 0, capsys.readouterr()
    notes = read(broker, site.notes, topics.partitions)
    assert len(notes) == 2 * number // 5
    assert all(FILTERED_HEADER in dict(note.headers) for note in notes)
    angry = read(broker, f"{topics.output}.NEGATIVE", topics.partitions)
    assert all(ROUTE_HEADER in dict(result.headers) for result in angry)
    assert site.audit()["holds"]
