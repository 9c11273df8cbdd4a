"""Origins of values: flags, environment, directory of secrets, settings file, defaults.

Owns: `load`, the search for the settings file, and `os.environ`: no other module reads it.
Thread: main, before any other starts.
Must not import: anything of worker but `errors` and this package.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr, ValidationError

from worker.errors import SettingsError
from worker.settings.declaration import Settings
from worker.settings.file_secrets import FileSecret, handed_on, received, secret_in
from worker.settings.files import files_in, read_secret, read_toml
from worker.settings.model_plan import unused_sections
from worker.settings.options import ENV_PREFIX, Option, options
from worker.settings.problems import explain
from worker.settings.route_conflicts import route_doubts
from worker.settings.sign_in import doubts
from worker.settings.toml_values import plain

SECRETS_DIR: Final = f"{ENV_PREFIX}SECRETS_DIR"
CONFIG: Final = f"{ENV_PREFIX}CONFIG"
CONFIG_FILE: Final = Path("streamlabel.toml")  # in the current directory

# A secret in a file that is read again for each connection.
_READ_AGAIN: Final = frozenset({"kafka.sasl_password", "kafka.ssl_key_password"})

# Option path -> value and origin.
Layer = dict[str, tuple[Any, str]]


@dataclass(frozen=True)
class Loaded:
    """Settings in force.

    Attributes:
        settings: the values.
        origins: the origin of each option that is not at its default.
        warnings: one sentence for each suspicious variable or value.
        file: the settings file that was read, if any.
    """

    settings: Settings
    origins: Mapping[str, str]
    warnings: tuple[str, ...]
    file: Path | None = None
    flags: Mapping[str, Any] = field(default_factory=dict, repr=False)  # may hold a secret

    def again(self) -> Loaded:
        """Read the same origins again, the same settings file among them.

        Raises:
            SettingsError: as `load`.
        """
        return load(self.flags, self.file)


def find_config(
    flag: Path | None, environ: Mapping[str, str] | None = None, *, search: bool = True
) -> Path | None:
    """Return the settings file to read, or None.

    Args:
        flag: the value of --config, which has priority.
        environ: replaces `os.environ`; its STREAMLABEL_CONFIG comes second. `/dev/null` stands for
            no file.
        search: third, look for ./streamlabel.toml.

    Raises:
        SettingsError: the file that the flag or the variable names can't be read.
    """
    environ = os.environ if environ is None else environ
    variable = environ.get(CONFIG)
    path, origin = (flag, "--config") if flag else (Path(variable or ""), CONFIG)
    if not flag and not variable:
        # Unlike `Path.is_file`, this is False in a directory that this user may not search.
        return CONFIG_FILE if search and os.path.isfile(CONFIG_FILE) else None  # noqa: PTH113
    try:
        exists = path.exists()
    except OSError as error:
        raise SettingsError(
            f"can't read the settings file {path}: {error.strerror} (from {origin})"
        ) from error
    if not exists:
        raise SettingsError(f"can't read the settings file {path}: no such file (from {origin})")
    return None if str(path) == os.devnull else path


def load(
    flags: Mapping[str, Any] | None = None,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Read all origins and check the values.

    Args:
        flags: option path -> value, for the flags that were passed.
        config: a TOML file; `find_config` looks for one, `load` does not.
        environ: replaces `os.environ`.

    Raises:
        SettingsError: a line for each wrong setting: its value, accepted values, origin.
    """
    environ = os.environ if environ is None else environ
    layers = [
        {path: (received(value), _flag_of(path)) for path, value in (flags or {}).items()},
        _from_environment(environ),
        _from_secrets(environ),
        _from_file(config) if config else {},
    ]
    settings, origins = _checked(layers)
    warnings = (
        *_suspicious(environ),
        *doubts(settings.kafka),
        *route_doubts(settings),
        *unused_sections(settings),
    )
    return Loaded(settings, origins, warnings, config, flags or {})


def with_members(settings: Settings, members: Mapping[str, Any], origin: str) -> Settings:
    """Return settings of which some members differ, after all checks.

    Args:
        settings: the others.
        members: option path -> value.
        origin: of the members, for messages.

    Raises:
        SettingsError: a line for each wrong setting.
    """
    changed = {path: (value, origin) for path, value in members.items()}
    kept = {
        path: (value, "the settings in force")
        for path, value in _set_values(settings)
        if path not in members  # a table replaces the table of before
    }
    return _checked([changed, kept])[0]


def changed_options(before: Settings, after: Settings) -> list[str]:
    """Return the paths of the options that differ, without the secrets that are read again."""
    return [option.path for option in options() if _differs(option, before, after)]


def _differs(option: Option, before: Settings, after: Settings) -> bool:
    old, new = _value(before, option), _value(after, option)
    if isinstance(old, FileSecret) and isinstance(new, FileSecret) and option.path in _READ_AGAIN:
        return old.file != new.file
    return bool(old != new)


def _checked(layers: Sequence[Layer]) -> tuple[Settings, dict[str, str]]:
    """Return the settings of some layers, the first of which has priority, and their origins."""
    origins = {path: entry[1] for layer in reversed(layers) for path, entry in layer.items()}
    try:
        settings = Settings(layers=[_nested(layer) for layer in layers])  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsError(explain(error, origins)) from None
    return settings, origins


def _flag_of(path: str) -> str:
    return next((f"flag {o.flag}" for o in options() if o.path == path), "flag")


def _from_environment(environ: Mapping[str, str]) -> Layer:
    layer: Layer = {}
    for option in options():
        for name in option.env:
            entry = _variable(option, name, environ)
            if entry and option.path not in layer:
                layer[option.path] = entry
    return layer


def _variable(option: Option, name: str, environ: Mapping[str, str]) -> tuple[Any, str] | None:
    """Return a variable's value, or the content of the file that NAME_FILE names.

    An empty variable counts as unset: Compose files pass unset variables on as empty ones.
    """
    value, by_file = environ.get(name), f"{name}_FILE"
    file = environ.get(by_file) if option.secret else None
    if value and file:
        raise SettingsError(f"{name} and {by_file} are both set: unset one of them")
    if file:
        secret = secret_in(Path(file), by_file)
        return secret if option.is_text else secret.get_secret_value(), f"environment {by_file}"
    return (value, f"environment {name}") if value else None


def _from_secrets(environ: Mapping[str, str]) -> Layer:
    """Read a directory of secrets, as platforms mount it: a file per variable, in any case."""
    if not (folder := environ.get(SECRETS_DIR)):
        return {}
    try:
        files = files_in(Path(folder))
        named = {
            option: files[name.lower()]
            for option in options()
            for name in reversed(option.env)
            if name.lower() in files
        }
        found = [(option, file, read_secret(file)) for option, file in named.items()]
    except SettingsError as error:
        raise SettingsError(f"{SECRETS_DIR} = {folder}: {error}") from None
    return {
        option.path: (FileSecret(value, file) if option.is_text else value, f"file {file}")
        for option, file, value in found
        if value
    }


def _from_file(config: Path) -> Layer:
    layer: Layer = {}
    whole = {option.path for option in options() if not option.section}
    for name, value in read_toml(config).items():
        is_section = isinstance(value, dict) and name not in whole
        leaves = value.items() if is_section else [("", value)]
        for key, leaf in leaves:
            layer[f"{name}.{key}" if key else name] = (leaf, f"file {config}")
    return layer


def _nested(layer: Layer) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, (value, _) in layer.items():
        *section, key = path.split(".", 1)
        table = nested.setdefault(section[0], {}) if section else nested
        table[key] = value
    return nested


def _suspicious(environ: Mapping[str, str]) -> Iterator[str]:
    """Name the variables that have our prefix and are no option: most likely misspelt."""
    known = {name for option in options() for name in option.env} | {SECRETS_DIR, CONFIG}
    known |= {f"{name}_FILE" for option in options() if option.secret for name in option.env}
    for name in sorted(environ):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if name.startswith(ENV_PREFIX) and name not in known and near:
            yield f"environment variable {name} is not a setting; did you mean {near[0]}?"


def plain_values(settings: Settings) -> dict[str, Any]:
    """Return the value of every option that was set, as `load` takes it for a flag, fit for JSON.

    A default is left out: `input.topic` has one, and contradicts `input.topics` if it is set.
    Secrets are in the clear, but for those of a file, which is named: for a pipe to a child, never
    for a log or a command line.
    """
    return {path: handed_on(value) for path, value in _set_values(settings)}


def _set_values(settings: Settings) -> Iterator[tuple[str, Any]]:
    for option in options():
        if option.path.rpartition(".")[2] in _holder(settings, option).model_fields_set:
            yield option.path, _plain(_value(settings, option))


def _holder(settings: Settings, option: Option) -> Any:
    return getattr(settings, option.section) if option.section else settings


def _value(settings: Settings, option: Option) -> Any:
    return getattr(_holder(settings, option), option.path.rpartition(".")[2])


def _plain(value: Any) -> Any:
    if isinstance(value, FileSecret):
        return value
    return value.get_secret_value() if isinstance(value, SecretStr) else plain(value)


def read_environment(name: str) -> str | None:
    """Return a variable that is no setting: only this module may read `os.environ`."""
    return os.environ.get(name)


def default_environment(name: str, value: str) -> None:
    """Set a variable that a library reads in this process, unless it is set."""
    os.environ[name] = os.environ.get(name) or value


def child_environment(**changes: str) -> dict[str, str]:
    """Return this process's environment for a child, without our settings, then `changes`.

    The child receives its settings from us alone: it reads no ./streamlabel.toml either.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX)}
    return kept | {CONFIG: os.devnull} | changes
