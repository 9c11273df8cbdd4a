"""The page tells who the worker is and which settings are in force, and no secret."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.support.clocks import HandClock
from tests.support.sites import FixedHealth
from worker.http.about import DOCS, HIDDEN, About
from worker.http.feeds import PageFeeds
from worker.http.history import History
from worker.http.snapshot import SnapshotBuilder
from worker.metrics import Metrics
from worker.settings import Loaded, load, options

SECRET = "planted-Zq7-secret"
# An accepted value for each option that may hold a secret, and what it needs beside it.
PLANTED: dict[str, Any] = {
    "kafka.sasl_password": SECRET,
    "kafka.sasl_oauth_client_secret": SECRET,
    "kafka.sasl_oauth_parameters": {"audience": SECRET},
    "kafka.ssl_key_password": SECRET,
    "kafka.proxy_url": f"http://user:{SECRET}@proxy.example:3128",
    "kafka.sasl_oauth_token_url": f"https://user:{SECRET}@login.example/token?key={SECRET}",
    "kafka.extra": {"client_software": SECRET},
    "registry.password": SECRET,
    "registry.token": SECRET,
    "registry.ssl_key_password": SECRET,
    "http.token": SECRET,
}


def planted() -> Loaded:
    """Return settings with every secret, whether or not they fit together."""
    loaded = load(environ={})
    settings = loaded.settings
    for path, value in PLANTED.items():
        section, name = path.split(".")
        part = getattr(settings, section)
        kind = type(part).model_fields[name].annotation
        wrapped = SecretStr(value) if "SecretStr" in str(kind) else value
        settings = settings.model_copy(update={section: part.model_copy(update={name: wrapped})})
    return Loaded(settings, dict.fromkeys(PLANTED, "flag --x"), ())


def test_every_option_that_may_hold_a_secret_is_planted() -> None:
    assert {option.path for option in options() if not option.quotable} == set(PLANTED)


def test_no_secret_is_in_a_snapshot() -> None:
    loaded, clock, metrics = planted(), HandClock(), Metrics()
    about = About(loaded, clock.wall_ms())
    feeds = PageFeeds.on(loaded.settings.http, clock)
    history = History(metrics, clock)
    history.read()
    snapshot = SnapshotBuilder(history, FixedHealth(), feeds, about, clock).build()
    text = json.dumps(snapshot)
    assert SECRET not in text
    assert HIDDEN in text
    shown = {row["name"]: row["value"] for row in snapshot["settings"]}
    assert shown["http.token"] == shown["kafka.sasl_password"] == HIDDEN
    assert shown["kafka.sasl_oauth_token_url"] == "https://login.example/token"


def test_each_setting_has_its_value_and_origin(tmp_path: Path) -> None:
    file = tmp_path / "streamlabel.toml"
    file.write_text('[kafka]\ngroup_id = "my-group"\n[input]\ntopics = ["a", "b"]\n')
    loaded = load({"delivery": "exactly_once"}, file, {"STREAMLABEL_MODEL": "bundled"})
    rows = {row["name"]: row for row in About(loaded, 5).in_force()}
    assert list(rows) == [option.path for option in options()]
    assert rows["kafka.group_id"] == {
        "name": "kafka.group_id",
        "value": "my-group",
        "origin": f"file {file}",
    }
    assert rows["input.topics"]["value"] == ["a", "b"]
    assert rows["delivery"]["origin"] == "flag --delivery"
    assert rows["model.name"]["origin"] == "environment STREAMLABEL_MODEL"
    assert rows["http.port"]["origin"] == "default"
    assert rows["http.token"]["value"] is None
    json.dumps(rows)


def test_a_setting_that_was_changed_while_running_says_so() -> None:
    loaded = load(environ={})
    model = loaded.settings.model.model_copy(update={"name": "other/model"})
    now = loaded.settings.model_copy(update={"model": model})
    rows = {row["name"]: row for row in About(loaded, 5).in_force(now)}
    assert rows["model.name"]["value"] == "other/model"
    assert rows["model.name"]["origin"] == "changed while running"
    assert rows["model.dtype"]["origin"] == "default"


def test_the_identity_and_the_links() -> None:
    flags = {
        "input.topics": "a,b",
        "kafka.bootstrap_servers": "one:9092,two:9092",
        "processes": 4,
        "http.board_url": "https://grafana.example/d/1",
    }
    about = About(load(flags, environ={}), 1234)
    expected = {
        "inputs": ["a", "b"],
        "pattern": None,
        "output": "texts.labelled",
        "dead_letters": "texts.dead",
        "group": "streamlabel",
        "brokers": ["one:9092", "two:9092"],
        "started_at": 1234,
        "delivery": "at_least_once",
        "processes": 4,
        "mode": "classification",
    }
    assert expected.items() <= about.identity.items()
    assert about.links == {"docs": DOCS, "board": "https://grafana.example/d/1"}


@pytest.mark.parametrize("address", ["javascript:alert(1)", "ftp://x", "https://u:p@x/", "x"])
def test_a_board_that_is_no_web_address_is_refused(address: str) -> None:
    with pytest.raises(Exception, match=r"http\.board_url"):
        load({"http.board_url": address}, environ={})


def test_the_command_for_dead_letters_names_what_this_worker_needs(tmp_path: Path) -> None:
    file = tmp_path / "my settings.toml"
    file.write_text('[output]\ndead_letter_topic = "from.file"\n')
    route = '[{label = ["bad"], topic = "angry"}]'
    flags = {"input.topic": "in.x", "http.port": 9200, "kafka.group_id": "mine", "routes": route}
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": "one:9092",
        "STREAMLABEL_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "STREAMLABEL_KAFKA_SASL_MECHANISM": "PLAIN",
        "STREAMLABEL_KAFKA_SASL_USERNAME": "me",
        "STREAMLABEL_KAFKA_SASL_PASSWORD": SECRET,
    }
    about = About(load(flags, file, environ), 5)
    words = shlex.split(about.replay)
    assert words[:5] == ["streamlabel", "dead-letters", "replay", "--config", str(file)]
    assert ("--bootstrap-servers", "one:9092") in pairwise(words)
    assert ("--input-topic", "in.x") in pairwise(words)
    assert ("--routes", route) in pairwise(words)
    assert ("--group-id", "mine-replay") in pairwise(words), "not in the worker's own group"
    assert "--http-port" not in words
    assert "from.file" not in words
    assert about.replay_needs == ["STREAMLABEL_KAFKA_SASL_PASSWORD"]
    assert SECRET not in about.replay
