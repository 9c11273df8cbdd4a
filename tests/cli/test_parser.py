"""The command line's help and usage errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from worker.cli.main import main
from worker.cli.parser import COMMANDS, build_parser, parse
from worker.settings import FIRST_OPTIONS, options

ROOT = Path(__file__).parent.parent.parent
FIRST_FLAGS = [option.flag for option in options() if option.path in FIRST_OPTIONS]
OTHER_FLAGS = [option.flag for option in options() if option.path not in FIRST_OPTIONS]


def help_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 0
    return capsys.readouterr().out


def error_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Return the error's line, after the line of usage."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: streamlabel ")
    return error


def flags_in(text: str) -> set[str]:
    return {line.split()[0] for line in text.splitlines() if line.startswith("  --")}


def test_the_bare_command_prints_help_and_is_wrong_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    printed = capsys.readouterr()
    assert printed.err == ""
    assert all(f"    {name} " in printed.out for name in COMMANDS)


def test_help_shows_the_main_settings_only(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, "run", "--help")
    assert set(FIRST_FLAGS) <= flags_in(text)
    assert not set(OTHER_FLAGS) & flags_in(text)
    assert f"{len(OTHER_FLAGS)} more settings: streamlabel run --help-all" in text


def test_help_all_shows_every_setting_by_section(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, "run", "--help-all")
    printed = " ".join(text.split())
    for option in options():
        assert f" {option.flag}" in printed
    assert "\nkafka settings:\n" in text
    assert "\ngeneral settings:\n" in text


def test_a_command_with_few_settings_shows_all(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys, "top", "--help")
    assert "--http-token" in text
    assert "--help-all" not in text


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
@pytest.mark.parametrize("columns", [80, 100, 200])
def test_help_fits_the_terminal(
    command: list[str],
    columns: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Except for examples, which are not wrapped."""
    monkeypatch.setenv("COLUMNS", str(columns))
    text = help_of(capsys, *command, "--help")
    lines = [line for line in text.splitlines() if not line.startswith("    ")]
    assert max(map(len, lines)) <= min(columns, 100)
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["rn"], "streamlabel: error: no such command: rn; did you mean run?"),
        (["zzz"], "streamlabel: error: no such command: zzz"),
        (["help"], "streamlabel: error: no such command: help; did you mean --help?"),
        (["--versoin"], "streamlabel: error: unrecognized arguments: --versoin; did you mean --version?"),
        (
            ["--config", "s.toml", "run"],
            "streamlabel: error: unrecognized arguments: --config; options follow the command",
        ),
        (
            ["run", "--imput-topic", "x"],
            "streamlabel run: error: unrecognized arguments: --imput-topic; did you mean --input-topic?",
        ),
        (
            ["plan"],
            "streamlabel plan: error: the following arguments are required: --rate, --latency-goal",
        ),
    ],
)  # fmt: skip
def test_a_usage_error_is_short_and_suggests_a_fix(
    argv: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert error_of(capsys, *argv) == error


def test_a_hidden_flag_is_suggested_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean --kafka-sasl-username?" in error_of(
        capsys, "run", "--kafka-sasl-usrname=x"
    )


def test_an_abbreviated_flag_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """It would become ambiguous with the next setting."""
    error = error_of(capsys, "run", "--bootstrap-server=b:9092")
    assert error.endswith(
        "unrecognized arguments: --bootstrap-server; did you mean --bootstrap-servers?"
    )


def test_a_default_is_not_torn_apart(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(capsys, "run", "--help")
    assert "                            [default: localhost:9092]\n" in text
    assert "[default: 9100]\n" in text


def test_usage_names_the_required_arguments_only(capsys: pytest.CaptureFixture[str]) -> None:
    usage = help_of(capsys, "plan", "--help").splitlines()[0]
    assert usage == "usage: streamlabel plan [OPTIONS] --rate R --latency-goal MS"


def test_a_flag_that_help_hides_is_parsed() -> None:
    assert vars(parse(["run", "--batch-max-records", "7"]))["batch.max_records"] == "7"


def test_only_the_requested_command_gets_its_flags() -> None:
    assert "--delivery" not in build_parser(["topics"]).format_help()


def test_the_flags_of_all_commands_load_no_heavy_package() -> None:
    """Each command imports torch, the Kafka client and the web server only when it runs."""
    program = (
        "import sys; from worker.cli.parser import build_parser; build_parser(every=True);"
        "sys.exit(str({'torch', 'transformers', 'kafka', 'uvicorn'} & set(sys.modules) or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stderr.strip() == ""
