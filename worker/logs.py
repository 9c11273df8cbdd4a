"""Logging: JSON lines, or plain ones where standard error is a terminal.

Set up once, on the main thread. Imports structlog alone. Message texts never reach the log by
default: nothing here is given one, and the Kafka client, whose debug lines print record values,
is held at `warning`, and lower still unless the level is `debug`.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog
from structlog.typing import EventDict

# The library's defaults show each frame's local variables, and there a message's text may be.
_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
_QUIET = dict.fromkeys(
    ("kafka", "urllib3", "httpx", "httpcore", "filelock", "transformers", "torch"), logging.WARNING
) | {"opentelemetry": logging.ERROR}  # warns every few seconds that it will try again


def configure(level: str, style: Literal["auto", "json", "plain"], **fields: object) -> None:
    """Send everything that is logged, ours and the libraries', to standard error.

    Args:
        level: least severe level: debug, info, warning or error.
        style: `auto` is plain where standard error is a terminal, else JSON.
        fields: stand in every line, whichever thread writes it.
    """
    plain = style == "plain" or (style == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        lambda _logger, _method, line: fields | line,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=not plain),
    ]
    last: list[Any] = (
        [
            _harmless,
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
        if plain
        else [_TRACEBACKS, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    if level != "debug":
        handler.addFilter(_not_the_client)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _harmless(_logger: object, _method: str, line: EventDict) -> EventDict:
    """For people's eyes: a label or a file's name may have characters that steer a terminal.

    The repr of what is no string has them written out, and so has JSON.
    """
    return {
        name: _shown(value) if isinstance(value, str) else value for name, value in line.items()
    }


def _shown(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _not_the_client(record: logging.LogRecord) -> bool:
    """The Kafka client writes several lines a second while a broker is away; we say it once."""
    return not record.name.startswith("kafka") or record.levelno >= logging.CRITICAL


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose keyword arguments become fields of the line."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
