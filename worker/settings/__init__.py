"""Every option: type, bound, default and description, and the origin of each value.

One declaration serves flags, environment, TOML file, `check`, JSON Schema and the documentation::

    section         the base class of a group of options
    kafka           the options that reach and secure the Kafka cluster
    kafka_client    the options of the library's clients
    client_extra    the library's options that have no setting of their own
    registry        the options of the schema registry
    sign_in         which options each SASL mechanism needs and takes
    table           options that are tables of names and values
    prepare         the options that prepare a text
    decision        the options that turn probabilities into a decision
    sections        the options of the other groups
    conditions      conditions on a record
    condition_paths the fields that they ask for
    models          the options of several models
    model_plan      plans(): the models of a worker, whichever way they are set
    routes          where results go
    route_conflicts routes that make no sense
    digest          of the settings that decide what becomes of a record
    topics          the topics of a worker
    contradictions  checks across options
    declaration     Settings: all options
    forms           the form of a result
    options         the names of each option: path, flag, variables
    files           the TOML file, and files that hold one secret each
    problems        error messages
    origins         load() and find_config(); the only module that reads `os.environ`
    toml_values     options that are lists or tables, and their text in a flag
    schema          the JSON Schema of the TOML file
    template        the settings file that `init` writes

Owns: all configuration.
Thread: main loads it; any thread may read the frozen values.
Must not import: anything of worker but `errors`.
"""

from worker.settings.condition_paths import condition_paths
from worker.settings.conditions import FieldCondition, WhenSettings
from worker.settings.contradictions import PLAIN_FORMATS
from worker.settings.decision import DecisionSettings
from worker.settings.declaration import FIRST_OPTIONS, Settings
from worker.settings.digest import deciding_digest
from worker.settings.file_secrets import FileSecret, current
from worker.settings.forms import result_form
from worker.settings.kafka_client import KafkaSettings
from worker.settings.model_plan import (
    ModelPlan,
    is_changeable,
    models_named,
    plans,
    with_models_of,
)
from worker.settings.models import NamedModelSettings
from worker.settings.options import Option, options
from worker.settings.origins import (
    Loaded,
    changed_options,
    child_environment,
    default_environment,
    find_config,
    load,
    plain_values,
    read_environment,
    with_members,
)
from worker.settings.prepare import PrepareSettings
from worker.settings.registry import RegistrySettings
from worker.settings.routes import RouteSettings, route_names
from worker.settings.sections import (
    REFERENCE_MODEL,
    DriftSettings,
    HttpSettings,
    InputSettings,
    LogSettings,
    ModelSettings,
    OutputSettings,
    TracingSettings,
)
from worker.settings.shadow import ShadowSettings
from worker.settings.toml_values import TOML, FrozenTable, inline, plain
from worker.settings.topics import WorkerTopics, output_of

__all__ = [
    "FIRST_OPTIONS",
    "PLAIN_FORMATS",
    "REFERENCE_MODEL",
    "TOML",
    "DecisionSettings",
    "DriftSettings",
    "FieldCondition",
    "FileSecret",
    "FrozenTable",
    "HttpSettings",
    "InputSettings",
    "KafkaSettings",
    "Loaded",
    "LogSettings",
    "ModelPlan",
    "ModelSettings",
    "NamedModelSettings",
    "Option",
    "OutputSettings",
    "PrepareSettings",
    "RegistrySettings",
    "RouteSettings",
    "Settings",
    "ShadowSettings",
    "TracingSettings",
    "WhenSettings",
    "WorkerTopics",
    "changed_options",
    "child_environment",
    "condition_paths",
    "current",
    "deciding_digest",
    "default_environment",
    "find_config",
    "inline",
    "is_changeable",
    "load",
    "models_named",
    "options",
    "output_of",
    "plain",
    "plain_values",
    "plans",
    "read_environment",
    "result_form",
    "route_names",
    "with_members",
    "with_models_of",
]
