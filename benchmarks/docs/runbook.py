"""Every alert of `deploy/prometheus/alerts.yml` as an entry of the runbook.

Owns: the form of the runbook.
Thread: the main thread.
Must not import: worker.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ALERTS = Path(__file__).parents[2] / "deploy/prometheus/alerts.yml"
# Names of settings, metrics, reasons, paths and files.
_NAME = re.compile(r"/(?:livez|readyz|metrics)\b|\b[a-z][\w-]*(?:[._/][\w-]*\w)+|\b[a-z]+_\w+")
_VALUE = re.compile(r"{{\s*(?:\$labels\.(\w+)|\$value[^}]*)\s*}}")


def page(alerts: Path = ALERTS) -> str:
    """Return name, severity, condition, meaning and remedy of each alert."""
    groups = yaml.safe_load(alerts.read_text(encoding="utf-8"))["groups"]
    return "\n\n".join(_entry(rule) for group in groups for rule in group["rules"])


def _entry(rule: dict[str, Any]) -> str:
    name, notes = rule["alert"], rule["annotations"]
    duration = f", after {rule['for']}" if "for" in rule else ""
    return (
        f"## {name} {{ #{name.lower()} }}\n\n"
        f"{rule['labels']['severity']}{duration}\n{{ .option }}\n\n"
        f"**{_filled(notes['summary'])}**\n\n"
        f"{_marked(notes['description'].strip())}\n\n"
        f"```promql\n{rule['expr'].strip()}\n```"
    )


def _filled(summary: str) -> str:
    """Replace the placeholders of Prometheus by words."""
    return _VALUE.sub(lambda match: f"<{match[1] or 'value'}>".replace("<", "&lt;"), summary)


def _marked(text: str) -> str:
    """Return the text with names as code; spans that are code already stay."""
    spans = text.split("`")
    return "`".join(_NAME.sub(r"`\g<0>`", s) if i % 2 == 0 else s for i, s in enumerate(spans))
