"""Where each value came from: flags, environment, directory of secrets, file, defaults.

The only module that reads `os.environ`. Runs on the main thread, before anything else.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from worker.errors import SettingsError
from worker.settings.declaration import Settings
from worker.settings.files import files_in, read_secret, read_toml
from worker.settings.sections import Section

ENV_PREFIX = "STREAMLABEL_"
SECRETS_DIR = f"{ENV_PREFIX}SECRETS_DIR"

_SHOWN = 200  # characters of a value that is wrong


@dataclass(frozen=True)
class Option:
    """One leaf of the declaration: its names in every origin."""

    path: str
    flag: str
    env: tuple[str, ...]
    field: FieldInfo

    @property
    def secret(self) -> bool:
        """Whether its value must never be shown."""
        return "SecretStr" in str(self.field.annotation)

    @property
    def is_switch(self) -> bool:
        """Whether its flag takes no value."""
        return self.field.annotation is bool


@cache
def options() -> tuple[Option, ...]:
    """Every option, sections first, in the order of the declaration."""
    found = []
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            found += [_option(f"{name}.{k}", f) for k, f in section.model_fields.items()]
        else:
            found.append(_option(name, field))
    return tuple(found)


def _option(path: str, field: FieldInfo) -> Option:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    derived = ENV_PREFIX + path.upper().replace(".", "_")
    special: Any = extra.get("env") or ()
    own = tuple(name for name in special if name.startswith(ENV_PREFIX))
    foreign = tuple(name for name in special if not name.startswith(ENV_PREFIX))
    flag = extra.get("flag") or "--" + path.replace(".", "-").replace("_", "-")
    return Option(path, str(flag), (own or (derived,)) + foreign, field)


@dataclass(frozen=True)
class Loaded:
    """Settings in force, each option's origin, and what looked odd."""

    settings: Settings
    origins: Mapping[str, str]
    warnings: tuple[str, ...]


def load(
    flags: Mapping[str, Any] | None = None,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Read all origins and check them.

    Args:
        flags: option path -> value, for the flags that were given.
        config: a TOML file.
        environ: stands in for `os.environ`.

    Raises:
        SettingsError: one message that names each wrong setting, its value, bound and origin.
    """
    environ = os.environ if environ is None else environ
    layers = [
        {path: (value, _flag_of(path)) for path, value in (flags or {}).items()},
        _from_environment(environ),
        _from_secrets(environ),
        _from_file(config) if config else {},
    ]
    origins = {path: said[1] for layer in reversed(layers) for path, said in layer.items()}
    try:
        settings = Settings(layers=[_nested(layer) for layer in layers])  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsError(_explain(error, origins)) from None
    return Loaded(settings, origins, tuple(_suspicious(environ)))


def _flag_of(path: str) -> str:
    return next((f"flag {o.flag}" for o in options() if o.path == path), "flag")


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for option in options():
        for name in option.env:
            said = _said(option, name, environ)
            if said and option.path not in found:
                found[option.path] = said
    return found


def _said(option: Option, name: str, environ: Mapping[str, str]) -> tuple[Any, str] | None:
    """A variable's value, or that of the file which it names; empty counts as unset.

    Compose files pass variables on like that.
    """
    value, by_file = environ.get(name), f"{name}_FILE"
    file = environ.get(by_file) if option.secret else None
    if value and file:
        raise SettingsError(f"{name} and {by_file} are both set: unset one of them")
    if file:
        return _secret_in(file, by_file), f"environment {by_file}"
    return (value, f"environment {name}") if value else None


def _secret_in(file: str, variable: str) -> str:
    try:
        secret = read_secret(Path(file))
    except SettingsError as error:
        raise SettingsError(f"{variable}: {error}") from None
    if not secret:
        raise SettingsError(f"{variable}: {file} is empty")
    return secret


def _from_secrets(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """A directory as platforms mount it: each file has a variable's name, in any case."""
    if not (folder := environ.get(SECRETS_DIR)):
        return {}
    try:
        files = files_in(Path(folder))
        named = {
            option.path: files[name.lower()]
            for option in options()
            for name in reversed(option.env)
            if name.lower() in files
        }
        read = {path: (read_secret(file), f"file {file}") for path, file in named.items()}
    except SettingsError as error:
        raise SettingsError(f"{SECRETS_DIR} = {folder}: {error}") from None
    return {path: said for path, said in read.items() if said[0]}


def _from_file(config: Path) -> dict[str, tuple[Any, str]]:
    flat: dict[str, tuple[Any, str]] = {}
    for name, value in read_toml(config).items():
        leaves = value.items() if isinstance(value, dict) else [("", value)]
        for key, leaf in leaves:
            flat[f"{name}.{key}" if key else name] = (leaf, f"file {config}")
    return flat


def _nested(layer: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, (value, _) in layer.items():
        *section, key = path.split(".", 1)
        home = nested.setdefault(section[0], {}) if section else nested
        home[key] = value
    return nested


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    """One line a fault: setting, value, bound, origin, and the nearest name for an unknown one."""
    lines = []
    for fault in error.errors():
        path = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if not path:
            lines += [part + _origins_named_in(part, origins) for part in message.split("; ")]
            continue
        if fault["type"] == "extra_forbidden":
            lines.append(_unknown(path, fault["input"], origins))
            continue
        shown = _shown(path, fault["input"])
        lines.append(f"{path}{shown}: {message} (from {origins.get(path, 'default')})")
    return "\n".join(lines)


def _unknown(path: str, value: Any, origins: Mapping[str, str]) -> str:
    """A name that is none, and the nearest one; its value is not shown, it may be a secret."""
    if isinstance(value, dict) and "." not in path:
        tables = {o.path.partition(".")[0] for o in options() if "." in o.path}
        name, kind, known = f"[{path}]", "table", {f"[{table}]": table for table in tables}
    else:
        name, kind, known = path, "setting", {o.path: o.path for o in options()}
    # Whoever forgets the table, or takes another one, still knows the setting's own name.
    leaf = path.rpartition(".")[2]
    namesakes = [one for one, of in known.items() if of.rpartition(".")[2] == leaf]
    near = namesakes or difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    told = [origin for said, origin in origins.items() if f"{said}.".startswith(f"{path}.")]
    return f"{name}: no such {kind}{hint} (from {told[0] if told else 'default'})"


def _shown(path: str, value: Any) -> str:
    """` = value`, of a setting that is known and no secret: all else may hold one."""
    known = any(option.path == path and not option.secret for option in options())
    if not known or isinstance(value, dict | list):
        return ""
    return f" = {value!r:.{_SHOWN}}"


def _origins_named_in(message: str, origins: Mapping[str, str]) -> str:
    """Where the settings that a contradiction names were set."""
    told = [f"{path} from {origin}" for path, origin in origins.items() if path in message]
    return f" ({', '.join(told)})" if told else ""


def _suspicious(environ: Mapping[str, str]) -> Iterator[str]:
    """Variables with our prefix that name no option: most likely misspelt."""
    known = {name for option in options() for name in option.env} | {SECRETS_DIR}
    known |= {f"{name}_FILE" for option in options() if option.secret for name in option.env}
    for name in sorted(environ):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if name.startswith(ENV_PREFIX) and name not in known and near:
            yield f"environment variable {name} is no setting; did you mean {near[0]}?"


def plain_values(settings: Settings) -> dict[str, Any]:
    """Every option's value as `load` takes it for a flag, fit for JSON.

    Secrets are in the clear: for a pipe to a child, never for a log or a command line.
    """
    return {option.path: _plain(settings, option.path) for option in options()}


def _plain(settings: Settings, path: str) -> Any:
    value: Any = settings
    for step in path.split("."):
        value = getattr(value, step)
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value) if isinstance(value, Path) else value


def read_environment(name: str) -> str | None:
    """A variable that is no setting, for `demo` (the walls keep `os.environ` in this module)."""
    return os.environ.get(name)


def child_environment(**changes: str) -> dict[str, str]:
    """This process's environment for a child, with our own settings taken out, then `changes`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX)}
    return kept | changes
