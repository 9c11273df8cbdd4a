"""`streamlabel completion` prints scripts that shells can run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from worker.cli.completion import script
from worker.cli.main import main
from worker.cli.parser import COMMANDS

SHELLS = ("bash", "zsh", "fish")
BASH = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_shtab_streamlabel streamlabel "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "streamlabel"
    file.write_text(script("bash"))
    return file


def complete(file: Path, *words: str) -> set[str]:
    """Return the completions of the last word."""
    command = ["bash", "-c", BASH, "bash", str(file), "streamlabel", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        (("",), set(COMMANDS)),
        (("cla",), {"classify"}),
        (("run", "--boot"), {"--bootstrap-servers"}),
        (("run", "--batch-max-r"), {"--batch-max-records"}),
        (("run", "--batch-max-"), {f"--batch-max-{of}" for of in ("records", "seconds", "tokens")}),
        (("run", "--delivery", ""), {"at_least_once", "exactly_once"}),
        (("topics", ""), {"create", "describe"}),
        (("completion", ""), set(SHELLS)),
    ],
)
def test_bash_completes_commands_flags_and_values(
    bash_script: Path, words: tuple[str, ...], completions: set[str]
) -> None:
    assert complete(bash_script, *words) == completions


def test_bash_completes_files(bash_script: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").touch()
    assert complete(bash_script, "run", "--config", f"{tmp_path}/mi") == {f"{tmp_path}/mine.toml"}


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_every_command_and_the_settings(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for word in (*COMMANDS, "kafka-sasl-mechanism", "SCRAM-SHA-512"):
        assert word in text


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shutil.which(shell)])
def test_each_installed_shell_parses_its_script(shell: str, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text(script(shell))
    subprocess.run([shell, "-n", str(file)], check=True)
