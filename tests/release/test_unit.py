"""The systemd unit is valid, hardened, and starts the program with settings that exist.

Each check is a function that returns faults, and a planted fault shows that it finds one. No test
runs it under systemd, which needs a machine of its own; docs/without-containers.md has the version
that it was tried with.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.release.tree import ROOT
from worker.cli.parser import build_parser
from worker.settings import Settings, load, options

UNIT = ROOT / "deploy/systemd/streamlabel@.service"
PAGE = (ROOT / "docs/without-containers.md").read_text(encoding="utf-8")
TEXT = UNIT.read_text(encoding="utf-8")
FOREIGN = {"HF_HOME", "PYTHONDONTWRITEBYTECODE"}
# systemd's own measure, from 0 (least exposed) to 10, times ten.
MOST_EXPOSED = 15

Faults = Iterator[str]


def values(text: str, name: str) -> list[str]:
    """Return the values of a directive, in order."""
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


def seconds(text: str, name: str) -> float:
    return float(values(text, name)[-1].removesuffix("s"))


def program(text: str) -> Faults:
    """Check that the command is one of the program's, and stopped as the worker expects."""
    _, *arguments = values(text, "ExecStart")[-1].replace("%i", "posts").split()
    try:
        build_parser(arguments).parse_args(arguments)
    except SystemExit:
        yield f"the program refuses {arguments}"
    if values(text, "KillSignal") != ["SIGTERM"]:
        yield "the worker drains on SIGTERM"
    if values(text, "KillMode") != ["mixed"]:
        yield "the processes of a pool would get the signal twice, and stop without draining"
    pool = Settings().shutdown_timeout + 10  # as docs/operating.md says
    if seconds(text, "TimeoutStopSec") <= pool:
        yield f"systemd kills a pool that takes {pool:g} s to drain"
    if values(text, "RestartPreventExitStatus") != ["2"]:
        yield "a worker with wrong settings is restarted"
    if values(text, "Restart") != ["on-failure"] or values(text, "StartLimitIntervalSec") != ["0"]:
        yield "a worker that failed is not always restarted"


def environment(text: str) -> Faults:
    """Check that variables are settings, and that written paths are the unit's own folders."""
    known = {name for option in options() for name in option.env} | {"STREAMLABEL_SECRETS_DIR"}
    for variable in values(text, "Environment"):
        name, _, value = variable.partition("=")
        if name not in known | FOREIGN:
            yield f"{name} is not a setting"
        if value.startswith("%C/") and not value.startswith("%C/streamlabel/"):
            yield f"{value} is outside the cache directory"
    if "streamlabel" not in values(text, "CacheDirectory"):
        yield "the instances have no cache directory in common"
    if [f"%S/{name}" for name in values(text, "StateDirectory")] != values(
        text, "WorkingDirectory"
    ):
        yield "the worker does not run in its own folder"


def credentials(text: str) -> Faults:
    """Check that a file in the folder of secrets becomes the file that a setting is read from."""
    prefix, _, folder = values(text, "LoadCredential")[-1].partition(":")
    secrets = [name.lower() for option in options() if option.secret for name in option.env]
    if not all(name.startswith(f"{prefix}_") for name in secrets if name.startswith("stream")):
        yield f"no setting is read from a file {prefix}_..."
    if "Environment=STREAMLABEL_SECRETS_DIR=%d" not in text:
        yield "the worker does not look for credentials"
    if f"SetCredential={prefix}:" not in text:
        yield "an instance without secrets does not start"
    if not PAGE.count(folder.replace("%i", "posts")):
        yield f"the page does not name {folder}"


CHECKS: list[Callable[[str], Faults]] = [program, environment, credentials]

SABOTAGE = [
    (program, "--config /etc", "--configuration /etc"),
    (program, "KillSignal=SIGTERM", "KillSignal=SIGKILL"),
    (program, "KillMode=mixed", "KillMode=control-group"),
    (program, "TimeoutStopSec=45s", "TimeoutStopSec=30s"),
    (program, "RestartPreventExitStatus=2\n", ""),
    (program, "Restart=on-failure", "Restart=no"),
    (environment, "STREAMLABEL_MODEL_CACHE_DIR", "STREAMLABEL_CACHE_DIR"),
    (environment, "HF_HOME=%C/streamlabel/hub", "HF_HOME=%C/hub"),
    (environment, "CacheDirectory=streamlabel", "CacheDirectory=streamlabel/%i"),
    (environment, "StateDirectory=streamlabel/%i", "StateDirectory=streamlabel"),
    (credentials, "LoadCredential=streamlabel:", "LoadCredential=secrets:"),
    (credentials, "SECRETS_DIR=%d", "SECRETS_DIR=/run/secrets"),
    (credentials, "SetCredential=streamlabel:none\n", ""),
    (credentials, "%i.secrets", "%i.d"),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_unit_has_no_fault(check: Callable[[str], Faults]) -> None:
    assert list(check(TEXT)) == []


@pytest.mark.parametrize(("check", "old", "new"), SABOTAGE)
def test_each_check_finds_a_planted_fault(
    check: Callable[[str], Faults], old: str, new: str
) -> None:
    assert old in TEXT
    assert list(check(TEXT.replace(old, new, 1)))


def test_a_file_of_the_folder_is_read_as_the_secret(tmp_path: Path) -> None:
    """A credential is named by the folder's id, `_` and the file's name."""
    (tmp_path / "streamlabel").write_text("none")
    (tmp_path / "streamlabel_http_token").write_text("a-token-of-20-letters\n")
    settings = load(environ={"STREAMLABEL_SECRETS_DIR": str(tmp_path)}).settings
    assert settings.http.token is not None
    assert settings.http.token.get_secret_value() == "a-token-of-20-letters"


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """`systemd-analyze verify` warns of unknown directives and values."""
    assert analysed(tmp_path, TEXT, "verify") == (0, "")
    for old, new in (("ProtectProc=", "ProtectProcs="), ("KillMode=mixed", "KillMode=gently")):
        assert old in TEXT
        assert analysed(tmp_path, TEXT.replace(old, new), "verify")[1]


def test_systemd_finds_the_unit_hardly_exposed(tmp_path: Path) -> None:
    exposure = ("security", "--offline=yes", f"--threshold={MOST_EXPOSED}")
    assert analysed(tmp_path, TEXT, *exposure)[0] == 0
    for line in ("NoNewPrivileges=yes\n", "SystemCallFilter=@system-service\n"):
        assert line in TEXT
        open_ = TEXT.replace(line, "").replace("DynamicUser=yes\n", "")
        assert analysed(tmp_path, open_, *exposure)[0] == 1


def analysed(folder: Path, text: str, *command: str) -> tuple[int, str]:
    """Run systemd-analyze on an instance; return its exit code and what it said of errors."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    instance = folder / "streamlabel@posts.service"
    # It asks whether the program exists.
    instance.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text))
    done = subprocess.run(
        [program, *command, str(instance)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr
