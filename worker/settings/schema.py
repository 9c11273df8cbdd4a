"""The JSON Schema of the settings file, for editors and for checks in CI.

    python -m worker.settings.schema [--check]

Owns: `schemas/settings.schema.json`, made from the declaration.
Thread: main of its own program; no worker imports it.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import schemas
from worker.settings.declaration import Settings

FILE: Final = Path(schemas.__file__).parent / "settings.schema.json"

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
# pydantic's titles, and what is not of TOML
_NAMES: Final = ("title", "flag", "env", "quoted", "secret")
_NULL: Final = {"type": "null"}


def render() -> str:
    """Return the schema as the file holds it."""
    head = {
        "$schema": _DIALECT,
        "$id": "urn:streamlabel:schema:settings",
        "title": "streamlabel.toml",
    }
    body = _for_toml(Settings.model_json_schema()) | {
        "description": "Settings of streamlabel. Every option is optional."
    }
    return json.dumps(head | body, indent=2) + "\n"


def _for_toml(node: Any) -> Any:
    """Drop what TOML lacks (null: an option is left out instead) and what repeats another part."""
    if isinstance(node, list):
        return [_for_toml(item) for item in node if item != _NULL]
    if not isinstance(node, dict):
        return node
    cleaned = {
        key: _for_toml(value)
        for key, value in node.items()
        if not (key in _NAMES and not isinstance(value, dict))
        and not (key == "default" and (value is None or isinstance(value, dict)))
    }
    match cleaned:
        case {"anyOf": [single]}:
            del cleaned["anyOf"]
            return single | cleaned
    return cleaned


def main(argv: Sequence[str] | None = None, file: Path = FILE) -> int:
    """Write the file; with `--check`, return 1 if it differs from the declaration."""
    parser = argparse.ArgumentParser(
        prog="python -m worker.settings.schema", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 if stale")
    if not parser.parse_args(argv).check:
        file.write_text(render(), encoding="utf-8")
        return 0
    if file.exists() and file.read_text(encoding="utf-8") == render():
        return 0
    sys.stderr.write(f"{file.name} is stale: run python -m worker.settings.schema\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
