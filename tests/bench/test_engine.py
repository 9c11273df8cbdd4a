"""The engine's bench measures rounds of new texts, on request, in a process of its own."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import make_checkpoint
from worker.bench import engine
from worker.bench.engine_process import EngineProcess
from worker.bench.figures import EngineResult, ModelInfo
from worker.bench.measured import MeasuredModel
from worker.clock import SystemClock
from worker.errors import Fatal
from worker.processes import Interrupts

TEXTS = [f"text {'word ' * (number % 7)}{number}" for number in range(40)]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the arguments for a tiny model with other budgets to try."""
    folder = tmp_path_factory.mktemp("engine")
    model = make_checkpoint(folder / "tiny")
    config, texts = folder / "settings.toml", folder / "texts.json"
    lines = ["[model]", f'name = "{model}"', 'dtype = "float32"', "max_tokens = 16"]
    config.write_text("\n".join([*lines, "[batch]", "max_records = 8", "forward_tokens = 64"]))
    texts.write_text(json.dumps(TEXTS))
    return ["--config", str(config), "--texts", str(texts), "--number", "20", "--alone", "2"]


@pytest.fixture
def interrupts() -> Iterator[Interrupts]:
    with Interrupts(SystemClock()) as interrupts:
        yield interrupts


def test_every_round_has_new_texts(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line on standard input is a round; the end of the input prints the medians of all."""
    rounds: list[tuple[str, ...]] = []
    measure = MeasuredModel.measure

    def record(self: MeasuredModel, texts: Any) -> None:
        rounds.append(tuple(texts))
        measure(self, texts)

    monkeypatch.setattr(MeasuredModel, "measure", record)
    monkeypatch.setattr("sys.stdin", io.StringIO("\n\n"))
    assert engine.main([*arguments, "--sweep"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(line) for line in lines[:2]] == [{"texts_per_s", "cpu_us_per_text"}] * 2
    result = EngineResult.model_validate(lines[2]["engine"])
    assert (result.texts, result.rounds) == (20, 2)
    assert [point.forward_tokens for point in result.sweep] == [16, 32, 128]
    assert (result.configured.forward_tokens, result.configured.window) == (64, 8)
    assert result.configured.cpu_us_per_text is not None
    assert result.roofline is not None
    each = len(rounds) // 2
    assert len(set(rounds)) == len(rounds), "no two measurements have the same order"
    assert sorted({*rounds[0], *rounds[each]}) == sorted(TEXTS)


def test_texts_that_the_preparation_skips_are_left_out(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ast.literal_eval` returns a text for a literal, and fails on all else."""
    config = Path(arguments[1])
    own = config.with_name("own.toml")
    own.write_text(config.read_text() + '\n[prepare]\nfunction = "ast:literal_eval"\n')
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    arguments = [*arguments[:1], str(own), *arguments[2:]]
    assert engine.main(arguments) == 1
    assert "prepare.function leaves none of the texts" in capsys.readouterr().err
    literals = config.with_name("literals.json")
    literals.write_text(json.dumps([*TEXTS, *(repr(text) for text in TEXTS)]))
    bench = engine._EngineBench(
        engine.load({}, own, environ={}).settings,
        json.loads(literals.read_text()),
        20,
        SystemClock(),
        sweep=False,
    )
    assert bench._texts == [repr(text) for text in TEXTS]


def test_other_number_types_are_compared(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that the model can't be loaded in is reported with the reason."""
    load = engine.load_model

    def refuse(settings: Any, forward_tokens: Any, **more: Any) -> Any:
        if settings.dtype == "bfloat16":
            raise Fatal("not on this machine")
        return load(settings, forward_tokens, **more)

    monkeypatch.setattr(engine, "load_model", refuse)
    monkeypatch.setattr(engine, "_comparable", lambda _: ["float32", "bfloat16"])
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert engine.main([*arguments, "--sweep"]) == 0
    (other,) = json.loads(capsys.readouterr().out.splitlines()[1])["engine"]["dtypes"]
    assert other == {"dtype": "bfloat16", "point": None, "refused": "not on this machine"}


def test_the_process_answers_round_by_round(
    arguments: list[str], tmp_path: Path, interrupts: Interrupts
) -> None:
    with ExitStack() as stack:
        process = EngineProcess(arguments, tmp_path, None, stack, interrupts)
        assert process.round().texts_per_s > 0
        model, result = process.result()
    assert isinstance(model, ModelInfo)
    assert result.rounds == 1


def test_a_process_that_fails_is_reported_with_its_log(
    arguments: list[str], tmp_path: Path, interrupts: Interrupts
) -> None:
    missing = [str(tmp_path / "none") if "texts" in one else one for one in arguments]
    with ExitStack() as stack:
        process = EngineProcess(missing, tmp_path, None, stack, interrupts)
        with pytest.raises(Fatal, match=r"(?s)code 2.*--texts"):
            process.round()
