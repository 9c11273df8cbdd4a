"""Write a settings file with every setting explained: the main ones set, the others commented.

    streamlabel init
    streamlabel init --topic posts --input-text-path body --model bundled
    streamlabel init production.toml --bootstrap-servers broker-1:9092

A setting's flag (see --help-all) puts its value into the file. An existing file is not overwritten
without --force. Passwords and tokens are not written: put them into the environment or into files.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any, Final

from worker.core.counted import counted
from worker.errors import SettingsError, StreamlabelError
from worker.settings import Loaded, options, plain_values
from worker.settings.template import chosen_options, settings_template

OPTIONS: tuple[str, ...] = ("",)

_DEFAULT: Final = Path("streamlabel.toml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the file and --force."""
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        default=_DEFAULT,
        metavar="FILE",
        help=f"file to write [default: {_DEFAULT}]",
    )
    parser.add_argument(
        "--topic",
        dest="input.topic",
        default=argparse.SUPPRESS,
        metavar="TOPIC",
        help="short for --input-topic",
    )
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Write the file; return 0.

    Raises:
        SettingsError: a flag sets a secret.
        StreamlabelError: the file exists, or can't be written.
    """
    values = _values(loaded)
    config = "" if args.file == _DEFAULT else f" --config {shlex.quote(str(args.file))}"
    _write(args.file, settings_template(values, config), overwrite=args.force)
    number = len(chosen_options(values))
    print(
        f"wrote {args.file}: {counted(number, 'setting')} set, {len(options()) - number} commented"
    )
    print(f"next: edit it, then `streamlabel check{config}`")
    return 0


def _values(loaded: Loaded) -> dict[str, Any]:
    """Return the values of the flags."""
    plain, values = plain_values(loaded.settings), {}
    for option in options():
        if not loaded.origins.get(option.path, "").startswith("flag "):
            continue
        if option.secret:
            raise SettingsError(
                f"{option.flag}: a secret is not written to the file; set {option.env[0]}, or "
                f"{option.env[0]}_FILE to the name of a file that holds it"
            )
        values[option.path] = plain[option.path]
    return values


def _write(file: Path, text: str, *, overwrite: bool) -> None:
    try:
        with file.open("w" if overwrite else "x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        raise StreamlabelError(f"{file} exists: overwrite it with --force") from None
    except OSError as error:
        raise StreamlabelError(f"can't write {file}: {error.strerror}") from None
