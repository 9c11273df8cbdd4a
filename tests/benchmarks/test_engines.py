"""The comparison of engines: messages, shuffled turns, ratios within a round, changed labels."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.engines import __main__ as command
from benchmarks.engines.children import Child
from benchmarks.engines.compare import difference
from benchmarks.engines.contenders import ONNX, OPENVINO, OURS, REFERENCE, Contender, contenders
from benchmarks.engines.figures import EngineFigures, EngineModel, Engines, EngineTurn
from benchmarks.engines.serve import Server
from benchmarks.engines.table import goals, markdown
from benchmarks.engines.turns import ALL, Entrant, Rounds, by_size, texts_of, windows_of
from tests.support.clocks import HandClock
from worker.clock import SystemClock
from worker.errors import Fatal, SettingsError
from worker.processes import Interrupts

# Connects, then answers each message with the code's `answer(message)`.
CLIENT = """
import json, socket, sys
{}
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[sys.argv.index("--socket") + 1])
    lines = connection.makefile("rw")
    for line in lines:
        lines.write(json.dumps(answer(json.loads(line))) + "\\n")
        lines.flush()
"""
AMX = ("avx2", "amx_bf16")


class FakeEngine:
    """Labels each text with its length, and counts its calls."""

    runs_as, versions = "float32", "fake 1.0"

    def __init__(self) -> None:
        self.windows: list[int] = []

    def label(self, texts: list[str]) -> list[tuple[float, float]]:
        self.windows.append(len(texts))
        return [(len(text) / 10, 1 - len(text) / 10) for text in texts]

    def alone(self, text: str) -> object:
        return self.label([text])


class FakeChild:
    """Answers with fixed probabilities, and records the messages."""

    def __init__(self, probability: float = 0.9, error: str = "") -> None:
        self.messages: list[dict[str, Any]] = []
        self._probability, self._error = probability, error

    def ask(self, message: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        assert timeout_s > 0
        self.messages.append(message)
        if self._error:
            raise Fatal(self._error)
        if message["do"] == "load":
            return {"runs_as": "float32", "versions": "fake 1.0"}
        if message["do"] == "alone":
            return {"seconds": [0.003, 0.001, 0.002]}
        row = [self._probability, 1 - self._probability]
        texts = len(message["texts"])
        return {"seconds": texts / 100, "cpu_s": texts / 50, "probabilities": [row] * texts}


def entrant(contender: Contender, child: FakeChild) -> Entrant:
    return Entrant(contender, child, lambda _message: None)


def openvino(dtype: str) -> Contender:
    return Contender(OPENVINO, dtype, "openvino_engine")


def turn(rate: float, flips: int | None = 0) -> EngineTurn:
    known = flips is not None
    return EngineTurn(
        texts_per_s=rate,
        cpu_us=2_000,
        flips=flips,
        mean_dp=0.001 if known else None,
        max_dp=0.01 if known else None,
    )


def figures(
    engine: str, dtype: str, rates: tuple[float, ...], alone: float, flips: int | None = 0
) -> EngineFigures:
    return EngineFigures(
        name=f"{engine} {dtype}",
        engine=engine,
        dtype=dtype,
        runs_as=dtype,
        versions="",
        turns={name: tuple(turn(rate, flips) for rate in rates) for name in ("128", ALL)},
        alone_ms=(alone,) * len(rates),
        failed=None,
    )


def results(*rows: EngineFigures, name: str = "tiny", cpu: str = "a processor") -> Engines:
    model = EngineModel(
        name=name,
        date="2026-11-27",
        busy_cores=0.1,
        threads=2,
        texts=768,
        rounds=len(rows[0].alone_ms),
        engines=rows,
    )
    return Engines(cpu=cpu, cores=2, features=("avx2",), models=(model,))


def child(code: str, folder: Path, check: Callable[[Child], None]) -> None:
    clock = SystemClock()
    with Interrupts(clock) as interrupts:
        process = Child([sys.executable, "-c", code], folder / "child", interrupts, clock)
        try:
            check(process)
        finally:
            process.end()


def test_a_child_answers_one_message_after_another(tmp_path: Path) -> None:
    """Its own output goes to the log, and does not disturb the messages."""
    code = CLIENT.format("def answer(message): print('noise'); return {'twice': message['n'] * 2}")

    def check(process: Child) -> None:
        assert [process.ask({"do": "count", "n": n}, 30)["twice"] for n in (1, 2)] == [2, 4]

    child(code, tmp_path, check)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import missing_package", "No module named 'missing_package'"),
        (CLIENT.format("def answer(_): sys.exit('out of memory')"), "out of memory"),
        (CLIENT.format("def answer(_): return {'error': 'ValueError: why'}"), "ValueError: why"),
        (
            CLIENT.format("import time\ndef answer(_): time.sleep(60)"),
            "did not answer load within 0.5 s",
        ),
    ],
)
def test_a_failed_child_is_reported_with_its_error(code: str, message: str, tmp_path: Path) -> None:
    """It can't start, exits, answers with an error, or does not answer."""

    def check(process: Child) -> None:
        with pytest.raises(Fatal, match=message):
            process.ask({"do": "load"}, 0.5)

    child(code, tmp_path, check)


def test_a_server_labels_window_by_window_and_reports_errors() -> None:
    engine = FakeEngine()
    server = Server(lambda _options: engine, HandClock())
    assert "before it has loaded" in server.answer({"do": "alone"})["error"]
    loaded = server.answer({"do": "load", "options": {}})
    assert loaded == {"runs_as": "float32", "versions": "fake 1.0"}
    answer = server.answer({"do": "label", "texts": ["a", "bb", "ccc"], "window": 2})
    assert engine.windows == [2, 1]
    assert answer["probabilities"] == [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]
    assert answer["cpu_s"] >= 0
    alone = server.answer({"do": "alone", "texts": ["a", "bb"], "gap_s": 0.05})
    assert len(alone["seconds"]) == 2
    assert server.answer({"do": "label"}) == {"error": "KeyError: 'texts'"}


def test_rounds_have_new_texts_until_the_pool_is_used_up() -> None:
    """Then they come in another order: no engine sees the same batches again."""
    pool = [str(number) for number in range(10)]
    first, second, third = (texts_of(pool, number, 4) for number in range(3))
    assert not set(first) & set(second)
    assert third not in (first, second)
    assert texts_of(pool, 0, 4) == first
    with pytest.raises(SettingsError, match="--texts 11 exceeds the 10 texts"):
        texts_of(pool, 0, 11)


def test_windows_are_smaller_than_a_round() -> None:
    assert windows_of((128, 512), 768) == {"128": 128, "512": 512, ALL: 768}
    assert windows_of((128, 512), 384) == {"128": 128, ALL: 384}
    assert by_size(["512", ALL, "1024", "128"]) == ["128", "512", "1024", ALL]


def test_turns_are_shuffled_and_complete() -> None:
    """All engines get the same texts in all windows; another round has another order."""
    one, two = FakeChild(), FakeChild()
    entrants = [entrant(openvino("float32"), one), entrant(openvino("int8"), two)]
    rounds = Rounds(entrants, {"2": 2, ALL: 4}, lambda _seconds: None)
    orders = [rounds._turns(number) for number in range(6)]
    assert len({tuple(map(str, order)) for order in orders}) > 1
    rounds.run(0, ["a", "b", "c", "d"])
    for fake in (one, two):
        labelled = [message for message in fake.messages if message["do"] == "label"]
        assert sorted(message["window"] for message in labelled) == [2, 4]
        assert all(message["texts"] == ["a", "b", "c", "d"] for message in labelled)
        assert sum(message["do"] == "alone" for message in fake.messages) == 1


def test_figures_compare_with_the_reference_of_the_same_round() -> None:
    entrants = [
        entrant(REFERENCE, FakeChild(0.9)),
        entrant(openvino("float32"), FakeChild(0.8)),
        entrant(openvino("int8"), FakeChild(0.4)),
    ]
    rounds = Rounds(entrants, {"2": 2, ALL: 4}, lambda _seconds: None)
    rounds.run(0, ["a", "b", "c", "d"])
    reference, close, far = (item.figures() for item in entrants)
    assert list(reference.turns) == [ALL]
    assert reference.turns[ALL][0].flips == 0
    assert close.turns["2"][0].flips == 0
    assert close.turns[ALL][0].max_dp == pytest.approx(0.1)
    assert far.turns[ALL][0].flips == 4
    assert far.turns[ALL][0].mean_dp == pytest.approx(0.5)
    assert far.turns[ALL][0].texts_per_s == pytest.approx(100)
    assert far.turns[ALL][0].cpu_us == pytest.approx(20_000)
    assert far.alone_ms == (pytest.approx(2.0),)


def test_a_failed_engine_keeps_its_reason_and_the_others_go_on() -> None:
    failing, working = FakeChild(error="exited:\n  a.SomeError: why\n  more"), FakeChild()
    said: list[str] = []
    broken = Entrant(REFERENCE, failing, said.append)
    entrants = [broken, entrant(openvino("int8"), working)]
    rounds = Rounds(entrants, {ALL: 2}, lambda _seconds: None)
    for item in entrants:
        item.load({"name": "m"})
    rounds.warm_up(["x"])
    rounds.run(0, ["a", "b"])
    assert broken.figures().failed == "a.SomeError: why"
    assert len(failing.messages) == 1
    assert len(said) == 1
    (whole,) = entrants[1].figures().turns[ALL]
    assert whole.flips is None  # there is no reference


def test_changed_labels_and_differences() -> None:
    """A single output is a label of its own above 0.5."""
    two = difference([[0.6, 0.4], [0.9, 0.1]], [[0.4, 0.6], [0.8, 0.2]])
    assert two == (1, pytest.approx(0.15), pytest.approx(0.2))
    assert difference([[0.6], [0.2]], [[0.4], [0.3]]) == (
        1,
        pytest.approx(0.15),
        pytest.approx(0.2),
    )


def test_contenders_compute_in_the_number_types_of_the_processor() -> None:
    names = [contender.name for contender in contenders(AMX)]
    assert names[0] == REFERENCE.name
    assert {f"{OURS} bfloat16", f"{OPENVINO} bfloat16", f"{OPENVINO} int8"} <= {*names}
    assert not any(item.dtype == "bfloat16" for item in contenders(("avx2",)))


def test_ratios_are_medians_of_ratios_within_a_round() -> None:
    """A machine that is slower in one round does not change them."""
    ours = figures(OURS, "bfloat16", (300, 100, 200), alone=9)
    theirs = figures(OPENVINO, "bfloat16", (150, 50, 400), alone=10)
    assert EngineModel.ratio(ours, theirs, ALL) == pytest.approx(2.0)
    rows = {row[0]: row[2:] for row in goals(results(ours, theirs))}
    pair = f"tiny: {OURS} / {OPENVINO}, bfloat16"
    assert rows[f"{pair}, windows of 128"] == ("2.00", "met")
    assert rows["tiny: one text, our best / the best other"] == ("0.90", "met")


@pytest.mark.parametrize(("ours", "verdict"), [(1, "met"), (2, "not met")])
def test_int8_must_change_a_tenth_of_the_labels(ours: int, verdict: str) -> None:
    rows = goals(
        results(
            figures(OURS, "int8", (120,), alone=5, flips=ours),
            figures(OPENVINO, "int8", (100,), alone=4, flips=10),
        )
    )
    judged = {row[0]: row[2:] for row in rows}
    pair = f"tiny: {OURS} / {OPENVINO}, int8"
    assert judged[f"{pair}, changed labels"] == (f"{ours} : 10", verdict)
    assert judged[f"{pair}, all texts at once"] == ("1.20", "met")
    assert judged["tiny: one text, our best / the best other"] == ("1.25", "not met")


def test_the_table_has_every_engine_and_its_conditions() -> None:
    failed = figures(ONNX, "int8", (1,), alone=1).model_copy(update={"failed": "a|b: no wheel"})
    without = figures(ONNX, "float32", (1,), alone=1, flips=None)
    text = markdown(results(figures(OURS, "float32", (150,), alone=7.25), failed, without))
    assert "| streamlabel float32 | 150.0 | 150.0 | 2.00 | 0 | 1e-03, 1e-02 | 7.2 |" in text
    assert r"| ONNX Runtime int8 | a\|b: no wheel |" in text
    assert "a processor, 2 cores (avx2); 2026-11-27; 2 threads; 1 round of 768 tweets" in text
    assert "UNRELIABLE" not in text
    busy = results(without)
    model = busy.models[0].model_copy(update={"busy_cores": 1.5})
    assert "UNRELIABLE: other programs kept 1.5 cores busy" in markdown(
        busy.model_copy(update={"models": (model,)})
    )


def test_rounds_are_added_under_the_same_conditions_only() -> None:
    earlier = results(figures(OURS, "float32", (100, 110), alone=5))
    later = results(figures(OURS, "float32", (120,), alone=6))
    (model,) = command.combined(earlier, later, append=True).models
    assert [turn.texts_per_s for turn in model.engines[0].turns[ALL]] == [100, 110, 120]
    assert model.rounds == 3
    assert command.combined(earlier, later, append=False) == later
    other = results(figures(OURS, "bfloat16", (120,), alone=6))
    assert command.combined(earlier, other, append=True) == other
    second = results(figures(OURS, "float32", (1,), alone=6), name="second")
    names = [model.name for model in command.combined(earlier, second, append=False).models]
    assert names == ["tiny", "second"]
    elsewhere = results(figures(OURS, "float32", (1,), alone=6), name="second", cpu="another")
    assert command.combined(earlier, elsewhere, append=True) == elsewhere


def test_results_survive_their_file() -> None:
    result = results(figures(OURS, "float32", (100,), alone=5))
    assert Engines.model_validate(json.loads(result.model_dump_json())) == result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--texts", "9"], "--texts 9 exceeds the 3 texts"),
        (["--texts", "2", "--only", "nothing"], "--only nothing names no engine"),
        (["--rounds", "0"], "0 is too small: give 1 or more"),
        (["--models", "unknown"], "invalid choice: 'unknown'"),
    ],
)
def test_wrong_usage_is_refused_before_installing(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    posts = [type("Post", (), {"text": str(n)}) for n in range(5)]
    monkeypatch.setattr(command, "load_rated", lambda *_: posts)
    monkeypatch.setattr(command, "CALIBRATION", 2)
    monkeypatch.setattr(command, "install", lambda *_: pytest.fail("installs an environment"))
    try:
        code = command.main(arguments)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err
