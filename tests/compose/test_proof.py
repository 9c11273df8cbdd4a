"""The proof notices what does not hold. A program stands in for docker."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.compose.__main__ import stand_ins
from tests.compose.feed import Feed
from tests.compose.proof import Proof
from tests.compose.report import Report
from tests.compose.stack import Stack, removed_at_the_end, until
from tests.containers.engine import Engine, Failed

# Answers the call whose arguments contain the first word of a line with the rest of it.
_DOCKER = """#!/bin/sh
while read -r word answer; do
  case " $* " in *" $word "*) [ "$answer" = fails ] && exit 1; echo "$answer"; exit 0 ;; esac
done < {answers}
"""


def engine(folder: Path, **answers: Any) -> Engine:
    """Return an engine whose docker answers as given."""
    lines = [f"{word.replace('_', '-')} {answer}\n" for word, answer in answers.items()]
    (folder / "answers").write_text("".join(lines), encoding="utf-8")
    program = folder / "docker"
    program.write_text(_DOCKER.format(answers=folder / "answers"), encoding="utf-8")
    program.chmod(0o755)
    return Engine({"PATH": f"{folder}:/usr/bin:/bin"})


def stack(folder: Path, **answers: Any) -> Stack:
    """Return a project whose commands are answered as given."""
    return Stack(engine(folder, **answers), "proof", {})


def proof(folder: Path, **answers: Any) -> Proof:
    """Return a proof of a project with one container per service, called `it`."""
    listed = json.dumps({"Name": "it"})
    return Proof(stack(folder, **answers, ps=listed), Report(io.StringIO()))


def test_what_is_left_fails_the_end(tmp_path: Path) -> None:
    """`down` succeeds, and a volume is still there."""
    with (
        pytest.raises(Failed, match="left volume cafe"),
        removed_at_the_end(stack(tmp_path, down="", volume="cafe"), print),
    ):
        pass


def test_a_failure_shows_the_logs_and_removes_the_project(tmp_path: Path) -> None:
    """The services' last lines are what a person needs."""
    said: list[str] = []
    with (
        pytest.raises(Failed, match="broken"),
        removed_at_the_end(stack(tmp_path, down="", logs="the last line"), said.append),
    ):
        raise Failed("broken")
    assert "the last line" in said


def test_a_condition_that_stays_false_fails() -> None:
    """The message says what was awaited."""
    with pytest.raises(Failed, match=r"not within 0 s: it rains"):
        until(lambda: False, "it rains", 0)


@pytest.mark.parametrize(("field", "value"), [("consumed", 9), ("published", 9), ("consumed", 11)])
def test_an_audit_of_other_records_fails(field: str, value: int, tmp_path: Path) -> None:
    """Ten were sent."""
    verdict = {"consumed": 10, "published": 10, "duplicated": 0}
    holds = proof(tmp_path, audit=json.dumps(verdict))
    assert holds._audit(10, repeats=False) == verdict
    breaks = proof(tmp_path, audit=json.dumps(verdict | {field: value}))
    with pytest.raises(Failed, match="10 records were sent"):
        breaks._audit(10, repeats=False)


def test_an_audit_that_is_broken_fails(tmp_path: Path) -> None:
    """`streamlabel audit` then exits with 1."""
    with pytest.raises(Failed, match="audit"):
        proof(tmp_path, audit="fails")._audit(10, repeats=True)


@pytest.mark.parametrize("threads", [1, 2])
def test_more_threads_than_cores_fail(threads: int, tmp_path: Path) -> None:
    """The worker has one CPU, and its log says how many threads it took."""
    line = {"message": "limits of this process", "threads": threads, "tokenizer_threads": "1"}
    subject = proof(tmp_path, logs=f"\x1b[2K{json.dumps(line)}")
    if threads == 1:
        assert subject._threads() == 1
    else:
        with pytest.raises(Failed, match="took more threads"):
            subject._threads()


def test_a_refused_record_fails() -> None:
    """An acknowledgement that never comes is not counted as sent."""

    class Sent:
        is_done = True
        exception = OSError("away")

        def failed(self) -> bool:
            return True

    feed = Feed("localhost:1")
    feed._sent.append(Sent())
    with pytest.raises(Failed, match="away"):
        _ = feed.acknowledged


def test_images_that_the_engine_holds_stand_in_for_pinned_ones(tmp_path: Path) -> None:
    """The engine asks no registry for them; the others stay pinned."""
    held = engine(tmp_path, **{"grafana/grafana:13.0.1": "fails", "inspect": "{}"})
    chosen = stand_ins(held)
    assert chosen["KAFKA_IMAGE"].startswith("apache/kafka:")
    assert "@" not in "".join(chosen.values())
    assert "GRAFANA_IMAGE" not in chosen
