"""Unreadable input: the worker stops before it turns the whole topic into dead letters."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from schemas import DeadLetter
from tests.conftest import Broker, Topics
from tests.support.models import make_checkpoint
from tests.support.workers import (
    ObedientModel,
    Record,
    audit,
    count,
    flags,
    produce,
    read,
    running,
    texts,
    wait_until,
)
from worker.cli.main import main
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.core.state import State
from worker.errors import StreamUnreadable
from worker.kafka_io.admin import Admin
from worker.settings import KafkaSettings, load, options

pytestmark = pytest.mark.integration


def posts(number: int, start: int = 0) -> list[Record]:
    """Return records with their text at `post.body`."""
    return [
        (b"k%d" % n, json.dumps({"post": {"body": f"post number {n}"}, "lang": "en"}).encode())
        for n in range(start, start + number)
    ]


def committed(broker: Broker, topics: Topics) -> int:
    """Return the number of committed records."""
    with Admin(KafkaSettings(bootstrap_servers=broker.bootstrap_servers)) as admin:
        return sum(admin.committed(topics.group, topics.input).values())


def reasons(broker: Broker, topics: Topics) -> Counter[str]:
    return Counter(
        DeadLetter.model_validate_json(dict(record.headers)[DEAD_LETTER_HEADER]).reason.value
        for record in read(broker, topics.dead, topics.partitions)
    )


@pytest.mark.allow_errors
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_wrong_text_path_stops_the_worker_and_loses_no_record(
    broker: Broker, topics: Topics, delivery: str
) -> None:
    """No record is published or committed; a worker with the right path labels all."""
    produce(broker, topics.input, posts(200))
    with running(broker, topics, delivery=delivery) as worker:
        worker.join(60)
    assert isinstance(worker.error, StreamUnreadable)
    assert worker.progress.state is State.FAILED
    for word in ("100 of the last 100", "path_missing", "'text'", "max_unreadable_ratio"):
        assert word in str(worker.error)
    assert (count(broker, topics), committed(broker, topics)) == (0, 0)
    with running(broker, topics, delivery=delivery, input__text_path="post.body"):
        wait_until(lambda: count(broker, topics) == 200, what="a mended worker labels all")
    verdict = audit(broker, topics)
    assert (verdict["holds"], verdict["published"], verdict["duplicated"]) == (True, 200, 0)


@pytest.mark.allow_errors
@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_changed_message_format_stops_the_worker_at_its_first_record(
    broker: Broker, topics: Topics
) -> None:
    """Exactly the readable records before it are labelled and committed."""
    produce(broker, topics.input, texts(700))
    produce(broker, topics.input, posts(1100))
    with running(broker, topics) as worker:
        worker.join(90)
    assert isinstance(worker.error, StreamUnreadable)
    assert "901 of the last 1000" in str(worker.error)
    assert reasons(broker, topics) == {}
    assert committed(broker, topics) == count(broker, topics) <= 700
    with running(broker, topics, input__text_path="post.body", max_unreadable_ratio=1.0):
        wait_until(lambda: count(broker, topics) == 1800, what="a mended worker goes on from there")
    assert audit(broker, topics)["duplicated"] == 0


def test_single_unreadable_records_become_dead_letters_soon(broker: Broker, topics: Topics) -> None:
    """The first record, the last, and some between: none waits for a hundred."""
    with running(broker, topics) as worker:
        for number in range(1, 4):
            produce(broker, topics.input, [(b"k", b"{")])
            wait_until(lambda n=number: len(read(broker, topics.dead, 3)) == n, what="it is dead")
        wait_until(lambda: committed(broker, topics) == 3, what="they are committed")
        produce(broker, topics.input, [(b"k", b"{"), *texts(1)] * 150)
        wait_until(lambda: count(broker, topics) == 303, what="all have an outcome")
    assert worker.error is None
    assert reasons(broker, topics) == {"not_json": 153}
    assert audit(broker, topics)["holds"]


def test_held_back_records_go_to_the_next_owner(broker: Broker, topics: Topics) -> None:
    """The worker stops while they wait: no dead letter yet, no commit, no loss."""
    with running(broker, topics, ObedientModel()) as worker:
        produce(broker, topics.input, texts(3))
        wait_until(lambda: worker.published == 3, what="it works")
        produce(broker, topics.input, posts(30))
        wait_until(lambda: worker.value("streamlabel_inflight_records") > 0, what="they wait")
        worker.stop()
    with running(broker, topics):
        wait_until(lambda: count(broker, topics) == 33, what="all have an outcome")
    assert audit(broker, topics)["duplicated"] == 0


def test_the_guard_can_be_turned_off_and_still_warns(broker: Broker, topics: Topics) -> None:
    produce(broker, topics.input, [*posts(200), (b"k", b"{")])
    with capture_logs() as said, running(broker, topics, max_unreadable_ratio=1.0):
        wait_until(lambda: count(broker, topics) == 201, what="all have an outcome")
    assert reasons(broker, topics) == {"path_missing": 200, "not_json": 1}
    assert audit(broker, topics)["holds"]
    lines = [line for line in said if line["event"].startswith("records became dead letters")]
    assert 1 <= len(lines) <= 2  # one line at once, and one at the stop for the rest of the minute
    counted = Counter[str]()
    for line in lines:
        counted.update(line["reasons"])
    assert counted == {"path_missing": 200, "not_json": 1}


# -- streamlabel check -------------------------------------------------------------------------


def check(broker: Broker, topics: Topics, model: Path, **more: object) -> int:
    given = flags(broker, topics) | {k.replace("__", "."): v for k, v in more.items()}
    words = [f"{one.flag}={given[one.path]}" for one in options() if one.path in given]
    return main(["check", "--model", str(model), *words])


def test_check_reads_the_newest_records_and_suggests_a_text_path(
    broker: Broker, topics: Topics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It joins no group and commits no offset."""
    model = make_checkpoint(tmp_path / "model")
    assert check(broker, topics, model) == 0
    assert "no record" in capsys.readouterr().out
    produce(broker, topics.input, texts(300))
    assert check(broker, topics, model) == 0
    assert "text found in 60 of 60" in capsys.readouterr().out
    produce(broker, topics.input, posts(300))
    assert check(broker, topics, model) == 1
    told = capsys.readouterr().out
    assert "text found in 0 of 60 (path_missing 60); members: lang, post;" in told
    assert "did you mean post.body?" in told
    assert check(broker, topics, model, input__text_path="post.body") == 0
    assert "text found in 60 of 60" in capsys.readouterr().out
    assert committed(broker, topics) == 0
    settings = load(flags(broker, topics), environ={}).settings
    with Admin(settings.kafka) as admin:
        assert admin.members(topics.group) == []
