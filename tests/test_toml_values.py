"""Options that are lists or tables: their forms in a file, a flag and a variable, and messages."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from worker.errors import SettingsError
from worker.settings import Settings, inline, load, options, plain, plain_values, with_members
from worker.settings.routes import RouteSettings, route_names
from worker.settings.template import settings_template
from worker.settings.toml_values import FrozenTable

ROUTE = '{name = "angry", label = "NEGATIVE", topic = "angry", path = "lang", in = "en"}'
FILE = """
[[routes]]
name = "angry"
label = "NEGATIVE"
topic = "angry"
path = "lang"
in = "en"
"""


def test_a_flag_a_variable_and_a_file_give_the_same_value(tmp_path: Path) -> None:
    (config := tmp_path / "streamlabel.toml").write_text(FILE)
    by_flag = load({"routes": f"[{ROUTE}]"}, environ={}).settings
    by_variable = load(environ={"STREAMLABEL_ROUTES": f"\n[{ROUTE},\n]"}).settings
    by_file = load(config=config, environ={})
    assert by_flag == by_variable == by_file.settings
    assert by_file.origins["routes"] == f"file {config}"
    assert by_flag.routes[0].in_ == ("en",)
    assert hash(by_flag.routes)
    assert route_names(by_flag.routes) == ("angry",)


def test_a_child_gets_the_value_that_its_parent_has() -> None:
    settings = load({"routes": f"[{ROUTE}]"}, environ={}).settings
    sent = json.loads(json.dumps(plain_values(settings)))
    assert load(sent, environ={}).settings == settings
    again = with_members(settings, {"routes": "[]"}, "here")
    assert again.routes == ()
    assert with_members(settings, {"processes": 2}, "here").routes == settings.routes


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        ("[", "routes = '[': must be a TOML value: Invalid value (at end of document)"),
        ("[" * 5000, "must be a TOML value: too many brackets"),
        ("[]\ndelivery = 1", "must be one TOML value, and the text has further lines"),
        ("{}", "routes: must be a list (from flag --routes)"),
        ("[1]", "routes[1] = 1: must be a table"),
        ('[{topic = "a", lable = "b"}]', "routes[1].lable: no such setting; did you mean label?"),
        ('[{topic = "a", zzz = "b"}]', "routes[1].zzz: no such setting; it has path, in, "),
        ('[{topic = "a b"}]', "routes[1].topic = 'a b': must be letters, digits, dots"),
        ('[{topic = "a", min_score = 3}]', "routes[1].min_score = 3: must be a number from 0 to 1"),
        ('[{topic = "a"}, {}]', "routes[2]: needs either topic or drop = true"),
        ('[{topic = "a", drop = true}]', "routes[1]: needs either topic or drop = true"),
        ("[{also = true, drop = true}]", "keep one of them"),
        (
            '[{topic = "a", min_score = 0.5, max_score = 0.5}]',
            "max_score (0.5) leaves no score: it must be above 0.5",
        ),
        ('[{topic = "a", max_margin = 0}]', "max_margin (0) leaves no margin"),
        ('[{topic = "a", pth = "x"}]', "routes[1].pth: no such setting; did you mean path?"),
        ('[{topic = "a", label = []}]', "routes[1].label: must not be empty: an empty list is"),
        ('[{topic = "a", decided = []}]', "routes[1].decided: must not be empty"),
        ('[{topic = "a", path = "x", in = []}]', "routes[1].in: must not be empty"),
        ('[{topic = "a", path = "x", not_in = []}]', "routes[1].not_in: must not be empty"),
        (
            '[{topic = "a", path = "x", in = ["y", {}]}]',
            "routes[1].in[2]: must be a string, a number, true or false (from flag --routes)",
        ),
        ('[{topic = "a", path = "x", not_in = 2020-01-01}]', "must be a string, a number, true"),
        ('[{topic = "a", path = "x", in = [nan]}]', "routes[1].in[1] = nan: must be a finite"),
        ('[{topic = "a", path = "x", in = -inf}]', "routes[1].in[1] = -inf: must be a finite"),
        ('[{topic = "a", path = "x", matches = "("}]', "is no regular expression"),
    ],
)
def test_a_wrong_value_gets_a_sentence(routes: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        load({"routes": routes}, environ={})
    assert message in str(error.value)
    assert "Value error" not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, "b c": [True, 0.5, "x"], "": {}},
        'quotes " and \\ and \n and \x7f and ü',
        [],
        {"\x7f": [[1], [2.5]]},
    ],
)
def test_a_value_is_written_as_it_is_read(value: Any) -> None:
    assert tomllib.loads(f"v = {inline(value)}")["v"] == value


def test_only_what_was_set_is_written() -> None:
    route = RouteSettings.model_validate({"topic": "a", "path": "x", "in": 1})
    assert inline([route]) == '[{path = "x", in = [1], topic = "a"}]'
    assert plain(Path("x")) == "x"
    assert hash(FrozenTable(a=1)) == hash(FrozenTable(a=1))


def test_the_template_shows_an_empty_list_and_a_set_one() -> None:
    assert "# routes = []" in settings_template({})
    routes = load({"routes": f"[{ROUTE}]"}, environ={}).settings.routes
    written = tomllib.loads(settings_template({"routes": routes}))
    assert written["routes"][0]["topic"] == "angry"


def test_options_of_tables_name_their_members() -> None:
    by_path = {option.path: option for option in options()}
    assert "label" in by_path["routes"].members
    assert by_path["routes"].is_toml
    assert not by_path["input.topics"].members
    assert Settings().routes == ()
