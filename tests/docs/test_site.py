"""The documentation builds without a warning, and its examples are true."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from benchmarks.docs import commands
from setup import absolute
from worker.settings import child_environment, load

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
SCHEMAS = ("text_message", "classification", "enriched_message", "dead_letter")
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]

_BLOCK = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def blocks(path: Path, language: str) -> list[str]:
    """Return the fenced blocks of a page in one language."""
    return [text for kind, text in _BLOCK.findall(path.read_text("utf-8")) if kind == language]


def named(language: str) -> list[Any]:
    """Return a test parameter for each fenced block of the documentation."""
    return [
        pytest.param(text, id=f"{path.name}-{number}")
        for path in PAGES
        for number, text in enumerate(blocks(path, language))
    ]


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """`mkdocs build --strict` refuses a dead link, a dead anchor and a page outside the menu."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for page in (ROOT / "docs").glob("*.md"):
        assert (tmp_path / ("" if page.stem == "index" else page.stem) / "index.html").is_file()
    assert 'src="http' not in (tmp_path / "settings/index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("schema", SCHEMAS)
def test_each_message_has_an_example_that_its_schema_accepts(schema: str) -> None:
    """The page on messages shows one JSON document of every kind, in the order of `SCHEMAS`."""
    examples = blocks(ROOT / "docs/messages.md", "json")
    assert len(examples) == len(SCHEMAS)
    document = json.loads((ROOT / f"schemas/{schema}.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(document).validate(json.loads(examples[SCHEMAS.index(schema)]))


def test_the_readmes_example_is_a_message_and_its_result() -> None:
    """Both JSON documents of the README satisfy their schemas."""
    message, result = blocks(ROOT / "README.md", "json")
    for schema, text in (("text_message", message), ("classification", result)):
        document = json.loads((ROOT / f"schemas/{schema}.schema.json").read_text(encoding="utf-8"))
        Draft202012Validator(document).validate(json.loads(text))


@pytest.mark.parametrize("text", named("toml"))
def test_every_example_of_settings_is_accepted(text: str, tmp_path: Path) -> None:
    """Each TOML block of the documentation loads, and satisfies the JSON Schema of settings."""
    config = tmp_path / "streamlabel.toml"
    config.write_text(text, encoding="utf-8")
    load(config=config, environ=_passwords(text))
    schema = json.loads((ROOT / "schemas/settings.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema).validate(tomllib.loads(text))


def _passwords(settings: str) -> dict[str, str]:
    """Return the passwords of the user names in an example, which come from elsewhere."""
    tables = tomllib.loads(settings)
    names = {"kafka": "sasl_username", "registry": "username"}
    return {
        f"STREAMLABEL_{table}_{name.replace('username', 'password')}".upper(): "x"
        for table, name in names.items()
        if name in tables.get(table, {})
    }


@pytest.mark.parametrize("text", named("bash"))
def test_every_command_that_is_shown_exists(text: str) -> None:
    """Each `streamlabel NAME` and each `make NAME` of a shell block can be called."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in re.findall(r"^streamlabel ([a-z]\S*)", text, flags=re.MULTILINE):
        assert name in commands.summaries()
    for name in re.findall(r"^make ([a-z-]+)", text, flags=re.MULTILINE):
        assert re.search(rf"^{name}:", makefile, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
)
def test_the_links_of_a_page_at_the_top_lead_somewhere(path: Path) -> None:
    """Relative links name files of the tree."""
    links = _LINK.findall(path.read_text(encoding="utf-8"))
    missing = [link for link in links if ":" not in link and not (ROOT / link).exists()]
    assert not missing


def test_links_are_absolute_on_a_package_index() -> None:
    """The package's README has no relative link and no relative picture."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    published = absolute(readme, REPOSITORY)
    assert not [link for link in _LINK.findall(published) if ":" not in link]
    assert f"]({REPOSITORY}/blob/main/CONTRIBUTING.md)" in published
    assert f"]({REPOSITORY}/raw/main/docs/images/performance.svg)" in published


def test_the_readme_is_short() -> None:
    """At most 150 lines."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
