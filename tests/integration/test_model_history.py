"""`streamlabel model history`: the models, from the results of real workers alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import Broker, Topics
from tests.integration.test_schemas import Writer, options, send
from tests.support.records import CARD
from tests.support.registry import ApicurioRegistry
from tests.support.workers import ObedientModel, audit, produce, running, texts, wait_until
from worker.cli.main import main

pytestmark = pytest.mark.integration

NEW = replace(CARD, name="tiny-\x1b[2J", revision="v2", weights_sha256="cd" * 32, labels=("x", "y"))


def history(broker: Broker, topics: Topics, *more: str) -> list[str]:
    """Return the arguments of the command."""
    return [
        *("model", "history", "--bootstrap-servers", broker.bootstrap_servers),
        *("--input-topic", topics.input, "--output-topic", topics.output, *more),
    ]


def label(broker: Broker, topics: Topics, model: Any, number: int, **more: Any) -> None:
    """Run a worker until so many records are labelled and committed."""
    with running(broker, topics, ObedientModel(card=model), **more) as worker:
        wait_until(lambda: worker.published == number, what=f"{number} records are labelled")
        wait_until(lambda: audit(broker, topics)["pending"] == 0, what="all is committed")


@pytest.mark.parametrize("mode", ["classification", "enrich"])
def test_each_partition_has_the_first_and_the_last_offset_of_each_model(
    broker: Broker, topics: Topics, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    """A dead letter has no model; a foreign record is told. The names are safe for a terminal."""
    for partition in range(2):
        produce(broker, topics.input, [*texts(10), (None, b"{}")], partition=partition)
    label(broker, topics, CARD, 20, output__mode=mode)
    for partition in range(2):
        produce(broker, topics.input, texts(5), partition=partition)
    label(broker, topics, NEW, 10, output__mode=mode)
    produce(broker, topics.output, [(None, b"foreign")])

    assert main(history(broker, topics, "--json")) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [
        (
            run["model"],
            run["weights_sha256"],
            run["first_offset"],
            run["last_offset"],
            run["results"],
        )
        for partition in found["partitions"]
        for run in partition["runs"]
    ] == [("tiny", "ab" * 32, 0, 9, 10), ("tiny-\x1b[2J", "cd" * 32, 11, 15, 5)] * 2
    assert [(m["model"], m["results"], m["newest_in"]) for m in found["models"]] == [
        ("tiny", 20, 0),
        ("tiny-\x1b[2J", 10, 2),
    ]
    assert (found["results"], found["foreign"], found["unreadable"]) == (30, 1, {})

    assert main(history(broker, topics)) == 0
    printed = capsys.readouterr().out
    head, _, columns, first, second, *_ = printed.splitlines()
    assert head == f"30 results of 2 models in {topics.output} (UTC)"
    assert columns.split() == ["model", "revision", "weights", "since", "results", "newest", "in"]
    assert first.split()[:4] == ["1", "tiny", "local", "ab" * 6]
    assert second.split()[:4] == ["2", "tiny-[U+001B][2J", "v2", "cd" * 6]
    assert "not counted: 1 record without the header of a result" in printed


def test_results_of_other_inputs_are_told_and_left_out(
    broker: Broker, topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped input has no history of others."""
    for name, number in ((topics.input, 2), ("other", 3)):
        for offset in range(number):
            source = [("streamlabel-source", f"{name}/0/{offset}".encode())]
            value = json.dumps(
                {"model": {"name": "m", "revision": "r", "weights_sha256": "w"}, "processed_at": 1}
            )
            produce(broker, topics.output, [(None, value.encode())], headers=source)
    assert main(history(broker, topics, "--json")) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["results"], found["other_inputs"]) == (2, {"other": 3})
    assert main(history(broker, topics, "--input-topic", "nope")) == 0
    told = capsys.readouterr().out
    assert f"no result of nope in {topics.output}" in told
    assert "not counted: 3 results of other: --input-topics takes several" in told
    assert f"not counted: 2 results of {topics.input}: " in told


def test_since_leaves_earlier_results_out(
    broker: Broker, topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    produce(broker, topics.input, texts(6), partition=0)
    label(broker, topics, CARD, 6)
    for since, number in (("1h", 6), ("now", 0), ("2100-01-01", 0)):
        assert main(history(broker, topics, "--json", f"--since={since}")) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["results"] == number


@pytest.mark.parametrize(
    ("input_format", "output"),
    [
        ("avro", {"output__format": "avro"}),
        ("avro", {"output__format": "avro", "output__mode": "enrich"}),
        ("avro", {"output__format": "protobuf"}),
        ("avro", {"output__format": "json_schema"}),
    ],
)
def test_results_of_a_registry_are_read(
    broker: Broker,
    topics: Topics,
    registry: ApicurioRegistry,
    capsys: pytest.CaptureFixture[str],
    input_format: str,
    output: dict[str, Any],
) -> None:
    """Without the registry's address, the command says that it needs it."""
    writer = Writer(registry, topics.input)
    send(broker, topics.input, 0, *map(writer.value, range(4)))
    label(broker, topics, CARD, 4, **options(registry, input__format=input_format, **output))
    assert main(history(broker, topics, "--json", "--registry-url", registry.url)) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    (partition,) = found["partitions"]
    (run,) = partition["runs"]
    assert (run["model"], run["first_offset"], run["last_offset"]) == ("tiny", 0, 3)
    assert run["since"].startswith("20")
    assert main(history(broker, topics)) == 1
    assert "set registry.url" in capsys.readouterr().err


def test_results_that_name_no_model_are_counted(
    broker: Broker, topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    source = [("streamlabel-source", f"{topics.input}/0/0".encode())]
    values = (b"{}", b"no JSON", b'{"model": 7}', b'{"classification": [1]}')
    produce(broker, topics.output, [(None, value) for value in values], headers=source)
    assert main(history(broker, topics)) == 0
    told = capsys.readouterr().out
    assert f"no result of {topics.input} in {topics.output}" in told
    assert "not counted: 3 results: it names no model" in told
    assert "not counted: 1 result: not JSON" in told


def test_a_topic_that_does_not_exist_is_named(
    broker: Broker, topics: Topics, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = history(broker, topics, "--output-topic", "no.such.topic")
    assert main(arguments) == 1
    assert "no.such.topic does not exist on" in capsys.readouterr().err
