"""Logging: JSON lines, or plain ones on a terminal.

Message texts are never logged by default: this module receives none, and the Kafka client, whose
debug lines contain record values, is silenced below the level `debug`.

Owns: the configuration of structlog and of the standard library's logging.
Thread: main configures it once; any thread logs.
Must not import: anything of worker.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Final, Literal

import structlog
from structlog.typing import EventDict

# The library's defaults show each frame's local variables, which may hold a message's text.
_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
_QUIET: Final = (
    *("kafka", "urllib3", "httpx", "httpcore", "httpx2", "httpcore2"),
    *("filelock", "transformers", "torch"),
)
_LEAST_LEVELS: Final = dict.fromkeys(_QUIET, logging.WARNING) | {
    "opentelemetry": logging.ERROR  # it warns of every retry, every few seconds
}


def configure(level: str, style: Literal["auto", "json", "plain"], **fields: object) -> None:
    """Send all log lines, ours and those of libraries, to standard error.

    A JSON line begins with `timestamp`, `level`, `message` and `logger`.

    Args:
        level: lowest level to log: debug, info, warning or error.
        style: `auto` is plain if standard error is a terminal, else JSON.
        fields: added to every line of every thread.
    """
    plain = style == "plain" or (style == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        lambda _logger, _method, line: fields | line,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=not plain),
    ]
    handler = logging.StreamHandler(sys.stderr)
    if level != "debug":
        handler.addFilter(_is_not_kafka_client)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_plain_renderer() if plain else _json_renderer()),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in _LEAST_LEVELS.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _plain_renderer() -> list[Any]:
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    return [_escape, console]


def _json_renderer() -> list[Any]:
    return [_TRACEBACKS, _common_fields_first, structlog.processors.JSONRenderer()]


def _common_fields_first(_logger: object, _method: str, line: EventDict) -> EventDict:
    """Name the fields as OpenTelemetry and ECS do; log collectors expect these first."""
    first: EventDict = {
        "timestamp": line.pop("timestamp"),
        "level": line.pop("level"),
        "message": line.pop("event"),
        "logger": line.pop("logger"),
    }
    return {**first, **line}


def _escape(_logger: object, _method: str, line: EventDict) -> EventDict:
    """Escape control characters: a label or a file name may hold a terminal's escape codes.

    Other values are shown by their repr, which escapes them; so does JSON.
    """
    return {
        name: _printable(value) if isinstance(value, str) else value for name, value in line.items()
    }


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _is_not_kafka_client(record: logging.LogRecord) -> bool:
    """Drop the Kafka client's lines: several a second while a broker is away, which we log once."""
    return not record.name.startswith("kafka") or record.levelno >= logging.CRITICAL


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger whose keyword arguments become fields of the line."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
