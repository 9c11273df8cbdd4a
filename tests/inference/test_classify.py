"""`streamlabel classify` with a real model: its input, its output and its failures."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from tests.support.models import Architecture, make_checkpoint
from worker.cli.main import main
from worker.cli.texts import lines
from worker.inference.classifier import TransformersClassifier

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture
def model(checkpoint: Callable[[Architecture], Path]) -> str:
    return str(checkpoint("distilbert"))


class Drip(io.RawIOBase):
    """A pipe with a slow writer: each read returns one write."""

    def __init__(self, *writes: bytes, before_each: Callable[[], Any] = lambda: None) -> None:
        self._writes = list(writes)
        self._before_each = before_each

    def read1(self, _size: int) -> bytes:
        self._before_each()
        return self._writes.pop(0) if self._writes else b""


def pipe(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": stream}))


def documents(printed: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in printed.splitlines()]


def test_json_is_one_object_a_text(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "--json", "--model", model, "I hate this so much!", "w " * 99]) == 0
    first, second = documents(capsys.readouterr().out)
    assert set(first) == {"text", "label", "score", "labels", "token_count", "truncated"}
    assert (first["text"], first["token_count"]) == ("I hate this so much!", 8)
    assert (second["token_count"], second["truncated"]) == (64, True)
    scores = {entry["label"]: entry["score"] for entry in first["labels"]}
    assert list(scores) == ["NEGATIVE", "POSITIVE"]
    assert scores[first["label"]] == first["score"] == max(scores.values())


def test_the_table_shows_label_score_and_tokens(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["classify", "--model", model, "Fine [bold]thing[/bold]", "so long " * 500]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["label", "score", "tokens", "text"]
    assert "Fine [bold]thing[/bold]" in first
    assert "█" in first
    assert " 64+ " in second
    assert second.rstrip().endswith("…")


def test_hostile_texts_and_labels_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Escape sequences, C1 controls, a bidi override, line and paragraph separators."""
    monkeypatch.setenv("COLUMNS", "160")
    folder = make_checkpoint(tmp_path, labels=("\x1b[2Jno", "\x1b[2Jyes"))
    text = "\x1b]0;title\x07 \x9b31m \u202eright \u2028 \ud800 \r over \0 👨‍👩‍👧"
    assert main(["classify", "--model", str(folder), text]) == 0
    printed = capsys.readouterr().out
    assert not set(printed) & set("\x1b\x07\x9b\u202e\u2028\ud800\r\0")
    assert "[U+001B]]0;title[U+0007] [U+009B]31m [U+202E]right [U+2028] [U+D800]" in printed
    assert "over [U+0000]" in printed
    assert "[U+001B][2J" in printed
    assert "👨‍👩‍👧" in printed
    assert main(["classify", "--json", "--model", str(folder), text]) == 0
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert documents(printed)[0]["text"] == text


def test_a_pipe_is_labelled_line_by_line(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, io.BytesIO("one\r\n\n  \n two é\n\xff\nlast".encode("latin-1")))
    assert main(["classify", "--json", "--model", model, "-"]) == 0
    printed = capsys.readouterr()
    texts = [document["text"] for document in documents(printed.out)]
    assert texts == ["one", " two \ufffd", "\ufffd", "last"]
    assert printed.err == "streamlabel: skipped 2 blank texts\n"


def test_an_empty_pipe_is_not_an_error(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, io.BytesIO(b""))
    assert main(["classify", "--model", model, "-"]) == 0
    assert capsys.readouterr() == ("", "")


def test_lines_are_labelled_as_they_arrive(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command labels the lines that it has before it waits for more."""
    answered: list[list[str]] = []

    def collect() -> None:
        answered.append([document["text"] for document in documents(capsys.readouterr().out)])

    pipe(monkeypatch, Drip(b"one\ntw", b"o\nthree\n", before_each=collect))
    assert main(["classify", "--json", "--model", model, "-"]) == 0
    assert answered == [[], ["one"], ["two", "three"]]


def test_the_table_of_a_pipe_has_one_header(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe(monkeypatch, Drip(b"one\n", b"two\n", b"three\n"))
    assert main(["classify", "--model", model, "-"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert "tokens" in header
    assert [row.split()[-1] for row in rows] == ["one", "two", "three"]
    assert (
        len({row.index(text) for row, text in zip(rows, ("one", "two", "three"), strict=True)}) == 1
    )


def test_lines_are_read_in_blocks() -> None:
    number = 1_000_000
    stream = io.BytesIO(b"short line\n" * number)
    sizes = [len(block) for block in lines(stream)]
    assert sum(sizes) == number
    assert max(sizes) <= 65_536 / len("short line\n") + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "required: TEXT"), ([""], "a text is blank"), (["fine", " \n"], "a text is blank")],
)
def test_no_text_is_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["classify", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-", "text"], "must be the only argument"),
        (["--column", "text", "posts.csv"], "--column needs --csv"),
    ],
)
def test_contradicting_arguments_are_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["classify", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_csv_column_is_labelled(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    posts = tmp_path / "posts.csv"
    posts.write_text('id,text\n1,"good, really"\n2,\n3,bad\n')
    command = ["classify", "--json", "--model", model, "--csv", "--column", "text", str(posts)]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert [document["text"] for document in documents(printed.out)] == ["good, really", "bad"]
    assert printed.err == "streamlabel: skipped 1 blank text\n"


def test_the_name_of_a_file_is_labelled_with_a_warning(
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The warning has the commands that label the file."""
    monkeypatch.chdir(tmp_path)
    Path("my posts.csv").touch()
    assert main(["classify", "--json", "--model", model, "my posts.csv"]) == 0
    printed = capsys.readouterr()
    assert documents(printed.out)[0]["text"] == "my posts.csv"
    assert "warning: 'my posts.csv' is labelled as a text" in printed.err
    assert "streamlabel classify --csv --column NAME 'my posts.csv'" in printed.err


def test_a_missing_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", "--model", "./nowhere", "text"]) == 1
    assert capsys.readouterr().err == (
        "streamlabel: there is no directory ./nowhere: set model.name (--model) to one, or to a "
        "hub id (`owner/name`)\n"
    )


def test_a_model_without_finite_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    weights = load_file(make_checkpoint(tmp_path) / "model.safetensors")
    weights["classifier.bias"][:] = float("nan")
    save_file(weights, tmp_path / "model.safetensors")
    assert main(["classify", "--model", str(tmp_path), "text"]) == 1
    assert "not a finite number" in capsys.readouterr().err


class TestOneBadText:
    """A text that fails does not fail the others."""

    @pytest.fixture
    def hostile(self, tmp_path: Path) -> str:
        """A checkpoint whose tokenizer has a token that the model lacks."""
        folder = make_checkpoint(tmp_path / "model")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(["zzz"])
        tokenizer.save_pretrained(folder)
        return str(folder)

    def test_an_unknown_token_id(self, hostile: str, capsys: pytest.CaptureFixture[str]) -> None:
        texts = ["one", "a zzz \x1b[2J", "three"]
        assert main(["classify", "--json", "--model", hostile, *texts]) == 1
        printed = capsys.readouterr()
        first, second, third = documents(printed.out)
        assert [first["text"], second["text"], third["text"]] == texts
        assert ("label" in first, "label" in third) == (True, True)
        assert set(second) == {"text", "error"}
        assert second["error"].startswith("RecordRejected: the text has a token of id 30522")
        assert "streamlabel: no label for 'a zzz [U+001B][2J': RecordRejected: the" in printed.err

    def test_a_failed_text_in_the_table(
        self, hostile: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["classify", "--model", hostile, "one", "zzz"]) == 1
        _, first, second = capsys.readouterr().out.splitlines()
        assert first.split()[0] in ("NEGATIVE", "POSITIVE")
        assert second.split() == ["-", "-", "-", "zzz"]

    def test_a_text_on_which_the_model_fails(
        self, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = TransformersClassifier.begin

        def begin(self: Any, model_input: Any) -> Any:
            if any(len(ids) == 5 for ids in model_input.ids):
                raise ValueError("All examples must have one end\nand more")
            return real(self, model_input)

        monkeypatch.setattr(TransformersClassifier, "begin", begin)
        assert main(["classify", "--json", "--model", model, "one", "one two three", "two"]) == 1
        answers = documents(capsys.readouterr().out)
        assert ["error" in answer for answer in answers] == [False, True, False]
        assert answers[1]["error"] == "ValueError: All examples must have one end"

    def test_invisible_lines_are_blank(
        self, model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pipe(monkeypatch, io.BytesIO("one\n\u200b\n\0\n".encode()))
        assert main(["classify", "--json", "--model", model, "-"]) == 0
        printed = capsys.readouterr()
        assert len(documents(printed.out)) == 1
        assert printed.err == "streamlabel: skipped 2 blank texts\n"


class TestSurroundings:
    """Closed streams, a full disk or an ASCII locale give one line and no traceback."""

    def run(self, model: str, rest: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-P", "-m", "worker", "classify", "--model", model)
        return subprocess.run(
            f"{shlex.join(command)} {rest}",
            shell=True,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        )

    def test_a_locale_of_ascii(self, model: str) -> None:
        done = self.run(model, "'fine é'", PYTHONIOENCODING="ascii")
        assert (done.returncode, done.stderr) == (0, "")
        assert r"fine \xe9" in done.stdout
        assert "###" in done.stdout

    @pytest.mark.parametrize("closed", ["<&-", ">&-"])
    def test_a_closed_stream(self, model: str, closed: str) -> None:
        done = self.run(model, f"- {closed} {'</dev/null' if closed == '>&-' else ''}")
        assert done.returncode == 2
        assert "closed" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full: Linux has it")
    @pytest.mark.parametrize("unbuffered", ["", "1"])
    @pytest.mark.parametrize("form", ["", "--json"])
    def test_a_full_disk(self, model: str, form: str, unbuffered: str) -> None:
        done = self.run(model, f"{form} fine >/dev/full", PYTHONUNBUFFERED=unbuffered)
        assert done.returncode == 1
        assert done.stderr == (
            "streamlabel: can't write standard output: No space left on device\n"
        )


def test_importing_the_command_imports_no_torch() -> None:
    program = (
        "import sys, worker.cli.classify, worker.inference, worker.inference.bundled;"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
