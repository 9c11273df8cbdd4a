"""Turns names of tests in the documentation into short links to the repository.

Owns: the hook that `mkdocs.yml` names; MkDocs calls it for each page.
Thread: the main thread of `mkdocs build`.
Must not import: the project; the site is built from Markdown alone.
"""

from __future__ import annotations

import re
from itertools import count
from typing import Any

_ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def on_page_markdown(markdown: str, config: Any, **_: object) -> str:
    """Replace `tests/FILE.py::test_NAME` in tables by a numbered link, elsewhere by the name."""
    source = config.extra["repository"] + "/blob/main"

    def named(match: re.Match[str]) -> str:
        path, name = match.groups()
        return f"[`{name}`]({source}/{path})"

    def row(match: re.Match[str]) -> str:
        numbers = count(1)
        return _TEST.sub(
            lambda test: f'[{next(numbers)}]({source}/{test[1]} "{test[2]}")', match[0]
        )

    return _TEST.sub(named, _ROW.sub(row, markdown))
