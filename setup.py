"""Gives the package the README with absolute links: a package index can't follow relative ones."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

_LINK = re.compile(r"(!?)(\[[^]]*\])\((?![a-z]+:|#)([^)]+)\)")


def absolute(text: str, repository: str) -> str:
    """Return Markdown whose relative links and pictures point into the repository."""

    def link(match: re.Match[str]) -> str:
        image, label, target = match.groups()
        return f"{image}{label}({repository}/{'raw' if image else 'blob'}/main/{target})"

    return _LINK.sub(link, text)


if __name__ == "__main__":
    here = Path(__file__).parent
    project = tomllib.loads((here / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    readme = (here / "README.md").read_text(encoding="utf-8")
    setup(
        long_description=absolute(readme, project["urls"]["Repository"]),
        long_description_content_type="text/markdown",
    )
