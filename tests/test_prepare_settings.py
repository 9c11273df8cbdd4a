"""The options of `[prepare]`: what they take, and what they refuse."""

from __future__ import annotations

import pytest

from worker.errors import SettingsError
from worker.settings import PrepareSettings, load


def test_everything_is_off_by_default() -> None:
    settings = load({}, environ={}).settings.prepare
    assert settings == PrepareSettings()
    assert not settings.is_on


@pytest.mark.parametrize("option", ["urls", "mentions"])
def test_a_preset_replaces_links_and_mentions_already(option: str) -> None:
    with pytest.raises(SettingsError, match=rf"prepare\.{option} is set, and prepare\.preset = "):
        load({"prepare.preset": "tweets", f"prepare.{option}": "x"}, environ={})


def test_an_empty_text_removes_what_it_replaces() -> None:
    assert load({"prepare.urls": ""}, environ={}).settings.prepare.urls == ""


def test_a_long_replacement_is_refused_with_its_bound() -> None:
    with pytest.raises(SettingsError, match=r"': must have at most 40 characters \(from"):
        load({"prepare.urls": "x" * 41}, environ={})


@pytest.mark.parametrize(
    "name", ["clean", "pkg.mod:", "pkg mod:f", ":f", "pkg:f.g", "../x:f", "1:f"]
)
def test_a_function_is_named_as_entry_points_are(name: str) -> None:
    with pytest.raises(SettingsError, match=r"must be package\.module:name"):
        load({"prepare.function": name}, environ={})
