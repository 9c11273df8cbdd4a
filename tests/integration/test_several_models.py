"""A worker with several models: each record has one outcome, and models change as a set."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Broker, Topics
from tests.support.changing import Changing
from tests.support.models import make_checkpoint
from tests.support.panels import RuleModel, panel_settings, rule_card, set_members
from tests.support.workers import audit, flags, produce, read, running, wait_until
from worker.core.model_set import ModelSet
from worker.settings import Settings, child_environment

pytestmark = pytest.mark.integration

RECORDS = 300
LANGUAGES = ("en", "de", "fr")
MODELS = """{
    language = {name = "x"},
    en = {name = "x", when = {model = "language", label = "en"}},
    de = {name = "x", when = {model = "language", label = "de"}, required = false},
    loud = {name = "x", when = {path = "loud", in = [true]}}
}"""


def failing(word: str, label: str) -> Callable[[str], str]:
    def rule(text: str) -> str:
        if word in text:
            raise ValueError("about a secret text")
        return label

    return rule


def models(settings: Settings) -> ModelSet:
    """Return models of which two fail on some texts: one is required, and one is not."""
    return ModelSet(
        set_members(
            settings,
            language=RuleModel(rule_card("language", *LANGUAGES), lambda text: text[:2]),
            en=RuleModel(rule_card("en", "BAD", "GOOD"), failing("-3-", "GOOD")),
            de=RuleModel(rule_card("de", "SCHLECHT", "GUT"), failing("-4-", "GUT")),
            loud=RuleModel(rule_card("loud", "NO", "YES"), lambda _: "YES"),
        )
    )


def posts() -> list[dict[str, Any]]:
    return [
        {"text": f"{LANGUAGES[n % 3]} post -{n % 7}- {n}", "loud": n % 2 == 0}
        for n in range(RECORDS)
    ]


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_each_record_has_what_its_models_say(broker: Broker, topics: Topics, delivery: str) -> None:
    settings = panel_settings(MODELS, **flags(broker, topics))
    produce(broker, topics.input, [(None, json.dumps(post).encode()) for post in posts()])
    made = models(settings)
    with running(
        broker,
        topics,
        (made, made),
        delivery=delivery,
        models=" ".join(MODELS.split()),
        max_dead_letter_ratio=1,
    ) as worker:
        wait_until(
            lambda: (
                worker.published
                + worker.value("streamlabel_records_dead_lettered_total", reason="model_failed")
                >= RECORDS
            ),
            what="all records have an outcome",
        )
        worker.stop()
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert (verdict["missing"], verdict["duplicated"], verdict["reordered"]) == (0, 0, 0)
    found = [json.loads(one.value) for one in read(broker, topics.output, topics.partitions)]
    failed = sum(post["text"].startswith("en") and "-3-" in post["text"] for post in posts())
    assert len(found) == RECORDS - failed
    said = Counter(summary(one) for one in found)
    assert said == Counter(expected(post) for post in posts() if not is_lost(post))


def is_lost(post: dict[str, Any]) -> bool:
    return post["text"].startswith("en") and "-3-" in post["text"]


def expected(post: dict[str, Any]) -> str:
    text = post["text"]
    en = "GOOD" if text.startswith("en") else "(not_applicable)"
    de = "GUT" if text.startswith("de") else "(not_applicable)"
    if text.startswith("de") and "-4-" in text:
        de = "(model_failed)"
    loud = "YES" if post["loud"] else "(not_applicable)"
    return f"language {text[:2]}, en {en}, de {de}, loud {loud}"


def summary(result: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {one['label'] if one else '(' + result['absences'][name] + ')'}"
        for name, one in result["classifications"].items()
    )


class ChangingSet(Changing):
    """A worker with a settings file that names two models."""

    engine = ()

    def write(self, model: Path | str) -> None:
        """Name another second model in the settings file."""
        self.file.write_text(
            f'[models.first]\nname = "{self.file.parent / "first"}"\nengine = "packed"\n'
            f'[models.second]\nname = "{model}"\nengine = "packed"\n'
            "[model]\nthreads = 1\n"
        )


@pytest.mark.parametrize("processes", [1, 2])
def test_a_change_of_one_model_keeps_the_other(
    broker: Broker, topics: Topics, tmp_path: Path, processes: int
) -> None:
    """The one that stays is not loaded again, and results change at one offset."""
    make_checkpoint(tmp_path / "first", seed=1)
    second = make_checkpoint(tmp_path / "second", seed=2, labels=("calm", "angry"))
    third = make_checkpoint(tmp_path / "third", seed=3, labels=("bad", "so-so", "good"))
    worker = ChangingSet(
        *(broker, topics, tmp_path, second), "--processes", str(processes), "--log-format", "json"
    )
    try:
        worker.wait_ready()
        produce(broker, topics.input, [(None, b'{"text": "before"}')] * 20)
        wait_until(lambda: worker.published == 20, what="the first set labels")
        worker.write(third)
        worker.process.send_signal(signal.SIGHUP)
        wait_until(lambda: worker.state()["change"] is not None, what="the change begins")
        wait_until(lambda: worker.state()["change"]["outcome"] != "loading", 180, "the change ends")
        assert worker.state()["change"]["outcome"] == "changed", worker.log.read_text()
        produce(broker, topics.input, [(None, b'{"text": "after"}')] * 20)
        wait_until(lambda: worker.published == 40, what="the new set labels")
        assert worker.stop() == 0, worker.log.read_text()
    finally:
        worker.kill()
    ready = Counter(line["name"] for line in worker.told("model ready"))
    assert ready == {"first": processes, "second": 2 * processes}
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    found = [json.loads(one.value) for one in read(broker, topics.output, topics.partitions)]
    names = Counter(one["classifications"]["second"]["model"]["name"] for one in found)
    assert names == {"second": 20, "third": 20}
    digests = {one["model"]["weights_sha256"] for one in found}
    assert len(digests) == 2
    history = subprocess.run(
        [
            *(sys.executable, "-m", "worker", "model", "history", "--json"),
            *("--bootstrap-servers", broker.bootstrap_servers),
            *("--input-topic", topics.input, "--output-topic", topics.output),
        ],
        capture_output=True,
        check=True,
        env=child_environment(),
    )
    used = [part["model"] for one in found for part in one["classifications"].values()]
    models = json.loads(history.stdout)["models"]
    assert {(one["model"], one["weights_sha256"]) for one in models} == {
        (one["name"], one["weights_sha256"]) for one in used
    }
