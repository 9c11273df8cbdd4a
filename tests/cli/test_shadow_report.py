"""streamlabel shadow report: the figures of a worker, or of two topics, for people and programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from worker.cli import main as program
from worker.http import client

SINCE = "2023-11-14 22:13:20 UTC"
MEMBER: dict[str, Any] = {
    "model": "second",
    "facts": {"revision": "v2", "engine": "packed", "dtype": "float32", "device": "cpu"},
    "against": "first",
    "state": "comparing",
    "since": 1_700_000_000_000,
    "share": 0.1,
    "texts": 12_345,
    "agreed": 11_900,
    "agreement": 11_900 / 12_345,
    "interval": [0.9606, 0.9671],
    "flips": [
        {"from": "NEGATIVE", "to": "POSITIVE", "number": 301},
        {"from": "neutral\x1b[2J", "to": "POSITIVE", "number": 141},
    ],
    "flips_left_out": 3,
    "divergence": {"mean": 0.0123, "p50": 0.001, "p90": 0.03, "p99": 0.41},
    "latency": {"shadow_ms": 6.1, "model_ms": 5.9},
    "skipped": {"loading": 0, "behind": 12, "failed": 0},
    "behind": 12,
    "unpublished": 0,
}


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The snapshot of a worker at any address, which a test may change."""
    snapshot: dict[str, Any] = {"shadow": dict(MEMBER)}
    monkeypatch.setattr(client, "snapshots", lambda *_: iter([snapshot]))
    return snapshot


@pytest.mark.usefixtures("shown")
def test_the_report_names_models_agreement_flips_divergence_and_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert program.main(["shadow", "report"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"shadow      second, compared with first on 10.00 % of the records since {SINCE} (comparing)",
        "agreement   96.40 % of 12,345 texts (95 % interval: 96.06 % to 96.71 %)",
        "divergence  mean 0.0123, p50 0.0010, p90 0.0300, p99 0.4100 bits (Jensen-Shannon, 0 to 1)",
        "flips       NEGATIVE           -> POSITIVE  301    2.44 %",
        "            neutral[U+001B][2J -> POSITIVE  141    1.14 %",
        "            other pairs: 3",
        "time a text shadow 6.10 ms, model 5.90 ms",
        "skipped     0 loading, 12 behind, 0 failed",
    ]


@pytest.mark.usefixtures("shown")
def test_a_program_gets_the_members_of_the_snapshot(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["shadow", "report", "--json", "--url", "http://10.0.0.7:9100"]) == 0
    assert json.loads(capsys.readouterr().out) == MEMBER


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"texts": 0}, "agreement   no text was compared yet"),
        (
            {"texts": 0, "state": "failed"},
            "agreement   no text was compared: the second model is off, and the worker's log says why",
        ),
        (
            {"model": "", "state": "loading"},
            "shadow      loading: is to see 10.00 % of the records",
        ),
        ({"divergence": None}, "divergence  none, as the models have different labels"),
        ({"flips": []}, "flips       none"),
        ({"unpublished": 1}, "unpublished 1 result did not reach shadow.topic"),
    ],
)
def test_what_is_not_known_is_said(
    changes: dict[str, Any],
    line: str,
    shown: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown["shadow"] |= changes
    assert program.main(["shadow", "report"]) == 0
    assert line in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("words", [("shadow", "report"), ("top", "--once")])
@pytest.mark.parametrize(
    ("lines", "code", "told"),
    [
        ("port = 9123", 1, "http://127.0.0.1:9123"),
        ('port = 9123\nhost = "0.0.0.0"', 1, "http://127.0.0.1:9123"),
        ('port = 9123\nhost = "10.0.0.7"', 1, "http://10.0.0.7:9123"),
        ('port = 9123\nhost = "::1"', 1, "http://[::1]:9123"),
        ("port = 0", 2, "http.port = 0 picks a free port: name the address that the worker's log"),
        ("", 1, "http://127.0.0.1:9100"),
    ],
)
def test_the_address_is_that_of_the_settings(
    words: tuple[str, ...],
    lines: str,
    code: int,
    told: str,
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def asked(url: str, _: str) -> Any:
        raise client.WatchError(f"asked {url}")

    monkeypatch.setattr(client, "snapshots", asked)
    config = tmp_path / "streamlabel.toml"
    config.write_text(f"[http]\n{lines}\n", encoding="utf-8")
    assert program.main([*words, "--config", str(config)]) == code
    assert told in capsys.readouterr().err.replace("asked ", "")


def test_a_worker_without_a_second_model_is_an_error(
    shown: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    shown["shadow"] = None
    assert program.main(["shadow", "report"]) == 1
    assert "has no second model: set shadow.name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topics"], "--topics needs shadow.topic"),
        (["--topics", "--url", "http://x"], "leave --url out"),
    ],
)
def test_topics_that_cannot_be_compared_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["shadow", "report", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_results_in_another_format_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their worker's settings file says so."""
    config = tmp_path / "streamlabel.toml"
    config.write_text(
        'output.format = "avro"\nregistry.url = "http://r"\nshadow.topic = "s"\n', encoding="utf-8"
    )
    assert program.main(["shadow", "report", "--topics", "--config", str(config)]) == 2
    assert "--topics reads results in JSON" in capsys.readouterr().err


def test_results_without_some_of_the_labels_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A divergence needs all of them."""
    config = tmp_path / "streamlabel.toml"
    config.write_text('shadow.topic = "s"\ndecision.top_k = 2\n', encoding="utf-8")
    assert program.main(["shadow", "report", "--topics", "--config", str(config)]) == 2
    assert "needs every label of a result" in capsys.readouterr().err
