"""`streamlabel check` prints the settings that matter, and a verdict for each part."""

from __future__ import annotations

import json
from typing import Any

import pytest

from worker.cli import verdicts
from worker.cli.main import main
from worker.cli.verdicts import Finding
from worker.errors import BrokerAway
from worker.limits import CpuLimit
from worker.settings import Settings, load, options

SECRET = "hunter2-hunter2-hunter2"


@pytest.fixture(autouse=True)
def checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that answers, and a model with a warning."""
    replaced = {
        "broker": lambda _: Finding("b:9092 answers"),
        "model": lambda _: Finding("bundled", ("results may not fit",)),
    }
    monkeypatch.setattr(verdicts, "CHECKS", replaced)
    monkeypatch.setattr("worker.logs.configure", lambda *_: None)


def broken(_: Settings) -> Finding:
    raise BrokerAway("can't connect to [b]b:9092[/b]")


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert main(["check", *words]) == code
    return capsys.readouterr().out


def test_settings_that_differ_are_shown_before_the_verdicts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = printed(capsys, "--input-topic", "posts", "--group-id", "streamlabel")
    table, _, rest = text.partition(f"{len(options()) - 1} other settings have their defaults")
    assert "input.topic" in table
    assert "flag --input-topic" in table
    assert "group_id" not in table
    lines = rest.splitlines()
    assert lines[-3:] == [
        "ok   broker: b:9092 answers",
        "ok   model: bundled",
        "warn model: results may not fit",
    ]


def test_without_changes_there_is_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys)
    assert text.startswith(
        f"settings file: none\n{len(options())} settings have their defaults (--all shows them)"
    )


def test_all_shows_the_other_settings_too(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--all")
    assert all(option.path in text for option in options())
    assert "--all shows" not in text


def test_json_is_one_object(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(verdicts.CHECKS, "broker", broken)
    words = ["--http-token", SECRET, "--processes", "2", "--json"]
    document = json.loads(printed(capsys, *words, code=1))
    assert document == {
        "ok": False,
        "settings": {
            "processes": {"value": 2, "from": "flag --processes"},
            "http.token": {"value": "(hidden)", "from": "flag --http-token"},
        },
        "file": None,
        "warnings": [],
        "verdicts": [
            {"name": "broker", "ok": False, "detail": "can't connect to [b]b:9092[/b]", "warnings": []},
            {"name": "model", "ok": True, "detail": "bundled", "warnings": ["results may not fit"]},
        ],
    }  # fmt: skip


def test_a_failed_check_fails_the_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other checks still run; the error is printed as it is."""
    monkeypatch.setitem(verdicts.CHECKS, "broker", broken)
    text = printed(capsys, "--http-token", SECRET, code=1)
    assert "FAIL broker: can't connect to [b]b:9092[/b]\n" in text
    assert "ok   model: bundled\n" in text
    assert SECRET not in text


def test_a_misspelt_variable_is_reported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMLABEL_INPUT_TOPICC", "x")
    assert "did you mean STREAMLABEL_INPUT_TOPIC?" in printed(capsys)
    document: dict[str, Any] = json.loads(printed(capsys, "--json"))
    assert "STREAMLABEL_INPUT_TOPIC" in document["warnings"][0]


@pytest.mark.parametrize(
    ("quota", "memory", "more", "expected"),
    [
        (None, None, {}, "16 cores; no memory limit"),
        (2.5, 2**30, {}, "2 cores: quota 2.5 of 16; memory limit 1,024 MiB"),
        (
            4.0,
            None,
            {"processes": 2},
            "4 cores: quota 4 of 16; no memory limit for 2 processes",
        ),
    ],
)
def test_the_limits_of_the_process_are_told(
    quota: float | None,
    memory: int | None,
    more: dict[str, Any],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.limits.cpu_limit", lambda: CpuLimit(16, quota))
    monkeypatch.setattr("worker.limits.memory_limit", lambda: memory)
    settings = load(more, environ={}).settings
    assert verdicts.limits(settings) == Finding(expected)
