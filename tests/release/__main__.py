"""Checks a release: `make release-check`.

It builds wheel and source distribution from a clean copy of the tree, installs the wheel in a new
environment, runs the demo there, and lists the components. The results are in `dist/`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.release.checks import STEPS
from tests.release.tree import ROOT, CheckFailed, NotPossible, Release, copy_tree, run

_WIDTH = max(map(len, STEPS))
# Steps that can't be tried after a failure of the step in front.
_LATER = {
    "build": {
        *("contents", "same wheel", "metadata", "README", "install"),
        *("command", "components of the wheel", "demo"),
    },
    "install": {"command", "components of the wheel", "demo"},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Make every check, print a line for each, and return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="make release-check", description=__doc__)
    parser.add_argument("--tag", default="", help="the tag to release; default: a rehearsal")
    parser.add_argument("--image", default="", help="default: streamlabel:<version>")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="default: dist/")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="streamlabel-release-") as scratch:
        tree = Path(scratch, "tree")
        copy_tree(tree)
        args.dist.mkdir(parents=True, exist_ok=True)
        release = Release(tree, args.dist.resolve(), Path(scratch), args.tag, args.image)
        _say(f"streamlabel {release.version}, {_source()}")
        failed, left_out = _make(release, args.only)
    passed = f"passed, without {', '.join(left_out)}" if left_out else "all checks passed"
    _say(f"failed: {', '.join(failed)}" if failed else passed)
    return 1 if failed else 0


def _make(release: Release, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the steps that failed, and those that are not possible here."""
    failed: list[str] = []
    left_out: list[str] = []
    for name in names:
        if any(name in _LATER.get(earlier, ()) for earlier in failed):
            failed.append(name)
            _say(f" FAIL  {name:<{_WIDTH}}  not tried")
            continue
        began = time.monotonic()
        try:
            said = STEPS[name](release)
        except NotPossible as reason:
            left_out.append(name)
            _say(f" -     {name:<{_WIDTH}}  not possible here: {reason}")
        except CheckFailed as error:
            failed.append(name)
            _say(f" FAIL  {name:<{_WIDTH}}  {error.faults[0]}")
            for fault in error.faults[1:]:
                _say(f"       {'':<{_WIDTH}}  {fault}")
        else:
            _say(f" ok    {name:<{_WIDTH}}  {said}  [{time.monotonic() - began:.0f} s]")
    return failed, left_out


def _source() -> str:
    commit = run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT).strip()
    changed = len(run(["git", "status", "--porcelain"], cwd=ROOT).splitlines())
    return f"commit {commit}" + (f" and {changed} changed files" if changed else "")


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
