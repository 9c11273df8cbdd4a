"""Every option: type, bound, default, description; where each value came from.

One declaration serves flags, environment, TOML file, `check` and the README's table::

    sections       the options, grouped
    declaration    Settings: all of them, cross-checked
    files          the TOML file, and files of which each holds a secret
    origins        load(): who said what; the only module that reads `os.environ`

Imports `errors` alone.
"""

from worker.settings.declaration import FIRST_OPTIONS, Settings
from worker.settings.origins import (
    Loaded,
    Option,
    child_environment,
    load,
    options,
    plain_values,
    read_environment,
)
from worker.settings.sections import (
    REFERENCE_MODEL,
    DriftSettings,
    HttpSettings,
    InputSettings,
    KafkaSettings,
    LogSettings,
    ModelSettings,
    OutputSettings,
    TracingSettings,
)
from worker.settings.topics import WorkerTopics

__all__ = [
    "FIRST_OPTIONS",
    "REFERENCE_MODEL",
    "DriftSettings",
    "HttpSettings",
    "InputSettings",
    "KafkaSettings",
    "Loaded",
    "LogSettings",
    "ModelSettings",
    "Option",
    "OutputSettings",
    "Settings",
    "TracingSettings",
    "WorkerTopics",
    "child_environment",
    "load",
    "options",
    "plain_values",
    "read_environment",
]
