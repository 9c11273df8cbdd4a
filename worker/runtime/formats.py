"""Chooses the formats of a worker's topics.

Owns: the choice. A format with a schema registry brings a thread and connections, which its owner
    closes.
Thread: the main thread, before the first poll.
Must not import: kafka, inference, cli; `registry` only if an option needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from worker.clock import Clock
from worker.core.decoder import Decoder, plain_format
from worker.core.formats.format import Format, ResultFormat
from worker.core.formats.plain_json import JsonResults
from worker.errors import SettingsError
from worker.metrics import Metrics
from worker.settings import PLAIN_FORMATS, InputSettings, Settings, condition_paths, result_form


@dataclass(frozen=True, slots=True)
class TopicFormats:
    """The formats of one worker.

    Attributes:
        values: parses the input.
        results: serialises results.
        away: returns why the schema registry does not answer a request, None if it does.
        resources: run and end with the worker, in a `with` block.
        add_output: registers the schema of results that go to a topic, if they have one.
        decoder: makes what reads the texts of parsed values.
    """

    values: Format
    results: ResultFormat
    away: Callable[[], str | None]
    resources: AbstractContextManager[object]
    add_output: Callable[[str], None] = lambda _: None
    decoder: Callable[[InputSettings, Format, Sequence[str]], Decoder] = Decoder


def topic_formats(settings: Settings, metrics: Metrics, clock: Clock) -> TopicFormats:
    """Return the formats that the settings name; register the schemas of results.

    Raises:
        SettingsError: a format needs packages that are not installed.
        RegistryAway: the schema registry does not answer; try again.
        SchemaRefused: it refuses a schema of results, or the worker.
    """
    plain = plain_formats(settings)
    if not settings.needs_registry:
        return plain
    require_packages(settings)
    from worker.registry.assembly import RegistryParts  # noqa: PLC0415 - the extra may be missing

    parts = RegistryParts(settings, metrics, clock)
    try:
        parts.register()
    except BaseException:
        parts.close()
        raise
    return TopicFormats(
        parts.values or plain.values,
        parts.results or plain.results,
        parts.away,
        parts,
        parts.add_output,
    )


def plain_formats(settings: Settings) -> TopicFormats:
    """Return formats without a registry."""
    return TopicFormats(
        plain_format(settings.input),
        JsonResults(result_form(settings)),
        lambda: None,
        nullcontext(),
    )


def measured_results(settings: Settings) -> ResultFormat:
    """Return results of the same size as a worker's, without a registry.

    Raises:
        SettingsError: the format needs packages that are not installed.
    """
    if settings.output.format in PLAIN_FORMATS:
        return JsonResults(result_form(settings))
    require_packages(settings)
    from worker.registry.results import FORMATS  # noqa: PLC0415 - the extra may be missing

    results = FORMATS[settings.output.format](form=result_form(settings))
    results.add(settings.topics.output_of(""))  # that of a record without a topic
    return results


def require_form(before: Settings, after: Settings) -> None:
    """Check that a changed model has results of the same schema, if they have one.

    Raises:
        SettingsError: it has not.
    """
    if before.output.format not in PLAIN_FORMATS and result_form(before) != result_form(after):
        raise SettingsError(
            f"results in output.format = {before.output.format!r} would have another schema, which is "
            "registered at a start: restart the worker"
        )


def require_paths(before: Settings, after: Settings) -> None:
    """Check that changed models ask for no field that the input's decoder leaves out.

    Raises:
        SettingsError: they do.
    """
    new = [path for path in condition_paths(after) if path not in condition_paths(before)]
    if new and before.input.format not in PLAIN_FORMATS:
        raise SettingsError(
            f"conditions ask for the field {new[0]!r}, and from input.format = "
            f"{before.input.format!r} the worker reads only the fields that those of its start ask "
            "for: restart the worker"
        )


def require_packages(settings: Settings) -> None:
    """Check that the packages are installed which the formats need.

    Raises:
        SettingsError: they are not.
    """
    if not settings.needs_registry:
        return
    try:
        import worker.registry.assembly  # noqa: F401, PLC0415 - the extra may be missing
    except ImportError as error:
        raise SettingsError(
            f"input.format = {settings.input.format!r} with output.format = "
            f"{settings.output.format!r} needs packages of the extra `registry` ({error}): "
            "pip install 'streamlabel[registry]'"
        ) from error
