"""Error messages for settings that were refused.

Owns: one line for each problem: option, value, accepted values, origin, nearest name.
Thread: main, while the settings are loaded.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from worker.settings.options import Option, members_of, options, section_in
from worker.settings.sections import PATTERNS

_MAX_SHOWN: Final = 200  # characters of a wrong value
_MOST_LISTED: Final = 12  # names of a table in a message
_SECRET_IN_URL: Final = re.compile(r"@|://.*[?#]")  # a user and a password, or a query

_NUMBERS: Final[Mapping[Any, str]] = {int: "a whole number", float: "a number"}
# Errors of pydantic that `_accepted` answers: wrong type, out of bounds, not among the choices.
_WRONG_VALUE: Final = ("int_", "float_", "bool_", "literal_", "greater_", "less_", "finite_")
_MESSAGES: Final = {
    "string_type": "must be a string",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} characters",  # of a secret
    "path_not_file": "no such file",
    "path_type": "must be the path of a file",
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "missing": "is missing",
    "tuple_type": "must be a list",
}


def explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    """Return one line for each problem that pydantic found."""
    lines = []
    for problem in error.errors():
        path = ".".join(part for part in problem["loc"] if isinstance(part, str))
        message = problem["msg"].removeprefix("Value error, ")
        if not path:
            lines += [part + _named_origins(part, origins) for part in message.split("; ")]
        elif holder := _table_of(problem["loc"]):
            lines.append(_in_table(problem, holder, message, origins))
        elif problem["type"] == "extra_forbidden":
            lines.append(_unknown(path, problem["input"], origins))
        else:
            option = next((option for option in options() if option.path == path), None)
            message = _message(problem, option.field if option else None) or message
            shown = _shown(option, problem["input"])
            lines.append(f"{path}{shown}: {message} (from {_origin_of(path, origins)})")
    return "\n".join(lines)


def _table_of(loc: Sequence[str | int]) -> Option | None:
    """Return the list or table of tables that holds the place of a problem."""
    depths = {".".join(map(str, loc[:depth])) for depth in range(1, len(loc))}
    return next((option for option in options() if option.is_toml and option.path in depths), None)


def _in_table(
    problem: Mapping[str, Any], option: Option, message: str, origins: Mapping[str, str]
) -> str:
    """Return the line for a member of a table in a list or table of tables.

    Tables of a list are counted from 1, as their default names are.
    """
    path = re.sub(
        r"\.(\d+)", lambda found: f"[{int(found[1]) + 1}]", ".".join(map(str, problem["loc"]))
    )
    section, field = section_in(option.field.annotation), None
    for part in problem["loc"][option.path.count(".") + 1 :]:
        known = members_of(section)
        if part in known:
            field, section = known[part], section_in(known[part].annotation)
    shown = _shown(option, problem["input"])
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(problem["loc"][-1], known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(known)}"
        shown, message = "", f"no such setting{hint}"
    return (
        f"{path}{shown}: {_message(problem, field) or message} "
        f"(from {_origin_of(option.path, origins)})"
    )


def _message(problem: Mapping[str, Any], field: FieldInfo | None) -> str | None:
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "string_pattern_mismatch" and context["pattern"] in PATTERNS:
        return f"must be {PATTERNS[context['pattern']]}"
    if context.get("min_length") == 1:
        return "must not be empty"
    if field and kind.startswith(_WRONG_VALUE):
        values = accepted(field)
        return f"must be {values}" if values else None
    return _MESSAGES[kind].format(**context) if kind in _MESSAGES else None


def accepted(field: FieldInfo) -> str | None:
    """Return what a number, a switch or a choice accepts, or None for another type."""
    for kind in (field.annotation, *get_args(field.annotation)):  # `int | None` is a union
        if get_origin(kind) is Literal:
            return f"one of {', '.join(get_args(kind))}"
        if kind is bool:
            return "true or false"
        if kind in _NUMBERS:
            return f"{_NUMBERS[kind]}{_bounds(field)}"
    return None


def _bounds(field: FieldInfo) -> str:
    limits = {
        name: f"{getattr(item, name):.15g}"
        for item in field.metadata
        for name in ("gt", "ge", "le")
        if hasattr(item, name)
    }
    match limits:
        case {"ge": least, "le": most}:
            return f" from {least} to {most}"
        case {"gt": limit, "le": most}:
            return f" above {limit}, at most {most}"
        case {"ge": least}:
            return f" of at least {least}"
        case {"gt": limit}:
            return f" above {limit}"
    return ""


def _shown(option: Option | None, value: Any) -> str:
    """Return ` = value`; nothing for what may hold a secret: an unknown name, a URL."""
    if option is None or not option.quotable or isinstance(value, dict | list):
        return ""
    if _SECRET_IN_URL.search(str(value)):
        return ""
    return f" = {value!r:.{_MAX_SHOWN}}"


def _unknown(path: str, value: Any, origins: Mapping[str, str]) -> str:
    """Name an unknown setting and the nearest known one; the value may be a secret."""
    if isinstance(value, dict) and "." not in path:
        tables = {option.section for option in options() if option.section}
        name, kind, known = f"[{path}]", "table", {f"[{table}]": table for table in tables}
    else:
        name, kind, known = path, "setting", {option.path: option.path for option in options()}
    # The setting's own name is right where the table is missing or another one.
    table, _, leaf = path.rpartition(".")
    namesakes = [shown for shown, full in known.items() if full.rpartition(".")[2] == leaf]
    members = [option.path for option in options() if table and option.section == table]
    near = namesakes or (_near(leaf, members) if members else _near(name, known))
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    if 0 < len(members) <= _MOST_LISTED and not near:
        hint = f"; {table} has {', '.join(member.rpartition('.')[2] for member in members)}"
    return f"{name}: no such {kind}{hint} (from {_origin_of(path, origins)})"


def _near(name: str, paths: Iterable[str]) -> list[str]:
    """Return the path with the most similar last part to a name's, if one is similar."""
    by_leaf = {path.rpartition(".")[2]: path for path in paths}
    return [by_leaf[leaf] for leaf in difflib.get_close_matches(name, by_leaf, n=1)]


def _origin_of(path: str, origins: Mapping[str, str]) -> str:
    """Return the origin of a setting, or of the first one in a table."""
    return next(
        (origin for name, origin in origins.items() if f"{name}.".startswith(f"{path}.")),
        "default",
    )


def _named_origins(message: str, origins: Mapping[str, str]) -> str:
    """Return the origins of the settings that a message names."""
    named = [f"{path} from {origin}" for path, origin in origins.items() if path in message]
    return f" ({', '.join(named)})" if named else ""
