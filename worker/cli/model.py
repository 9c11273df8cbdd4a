"""Fetch the model and check its files, or find out which model labelled which records.

    streamlabel model fetch --model my-org/my-model --model-revision v3

    streamlabel model history --since 7d

`fetch` needs no Kafka. It downloads a model of the hub into the hub's cache (HF_HOME), or prepares
the bundled one in `model.cache_dir`; a directory is only checked. It reads config, labels and
tokenizer, opens the files of the weights, and prints what it found. Afterwards a worker with the
same settings starts with HF_HUB_OFFLINE=1. Of several models, it fetches each. Exits 1 if a model
can't be had or used.

`history` reads the output topics alone: which model labelled each input partition from which
offset on, and since when. It commits nothing and may run beside workers.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from worker import logs
from worker.core.visible import excerpt, visible
from worker.core.when import MOMENTS, parse_moment
from worker.errors import ArgumentsError
from worker.settings import Loaded, plans

if TYPE_CHECKING:
    from worker.inference.described import Description

OPTIONS: tuple[str, ...] = (
    *("model.name", "model.revision", "model.cache_dir", "model.activation", "models"),
    *("log.level", "log.format"),
    *("kafka.", "input.topic", "input.topics", "input.topic_pattern", "output.topic", "registry."),
    "routes",
)

_LABELS, _LABEL_CHARACTERS = 30, 60  # labels shown, and characters of each


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action and the format of the output."""
    parser.add_argument(
        "action",
        choices=("fetch", "history"),
        help="download or prepare the model and check its files, or list the models of the results",
    )
    parser.add_argument(
        "--since",
        metavar="WHEN",
        help=f"history: only results that are not older: {MOMENTS} [default: all results]",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Fetch and check the model, or read its history, and print what is found; return 0.

    Raises:
        ArgumentsError: --since is no time, or has no effect.
        StreamlabelError: the model can't be had or used, or the topics can't be read.
    """
    logs.configure(loaded.settings.log.level, loaded.settings.log.format)
    if args.action == "history":
        from worker.cli.model_history import show_history

        return show_history(loaded.settings, _since_ms(args.since), as_json=args.json)
    if args.since is not None:
        raise ArgumentsError("--since has no effect with 'fetch': it belongs to history")
    from worker.inference.described import describe

    found = {plan.name: _document(describe(plan.options)) for plan in plans(loaded.settings)}
    if args.json:
        print(json.dumps(found.get(None) or {"models": found}))
    else:
        print("\n\n".join(_shown(name, document) for name, document in found.items()))
    return 0


def _shown(name: str | None, document: dict[str, Any]) -> str:
    """Return the lines of a model; several begin with their names in the settings."""
    lines = [("name", name)] if name else []
    return "\n".join(f"{what:<9} {visible(text)}" for what, text in [*lines, *_lines(document)])


def _since_ms(text: str | None) -> int:
    from worker.clock import SystemClock

    return 0 if text is None else parse_moment("--since", text, SystemClock().wall_ms())


def _document(model: Description) -> dict[str, Any]:
    checkpoint = model.checkpoint
    return {
        "model": checkpoint.name,
        "revision": checkpoint.revision,
        "weights_sha256": checkpoint.weights_sha256(),
        "labels": model.labels,
        "activation": model.activation,
        "folder": str(checkpoint.folder),
        "bytes": checkpoint.size,
    }


def _lines(document: dict[str, Any]) -> list[tuple[str, str]]:
    labels = [excerpt(label, _LABEL_CHARACTERS) for label in document["labels"][:_LABELS]]
    more = len(document["labels"]) - len(labels)
    return [
        ("model", document["model"]),
        ("revision", document["revision"]),
        ("sha256", document["weights_sha256"]),
        ("labels", ", ".join([*labels, *([f"and {more:,} more"] if more else [])])),
        ("size", f"{document['bytes'] / 1e6:,.1f} MB"),
        ("folder", document["folder"]),
    ]
