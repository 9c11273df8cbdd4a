"""Make a model's probabilities mean what they say, from texts that people labelled.

    streamlabel calibrate --texts labelled.csv --output decision.toml

Labels the texts, and finds the temperature under which the probabilities agree best with the
labels; for a model with independent labels, each label's threshold with the highest F1 too. The
figures come from folds: each text is measured with what the other folds gave. Prints the settings,
or writes them to a file that a worker reads; they replace the table of their name in yours.

The file is CSV with a header and the columns `text` and `label` (or `labels`, separated by `|`),
or JSON with one object a line (.jsonl) with the same members. Its labels are those of the results:
the new names where `decision.labels` renames or merges the model's.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Final

from worker import logs
from worker.cli.calibrate_view import report, settings_lines, tell_bad_rows
from worker.cli.labelled import (
    BadRow,
    Columns,
    LabelledText,
    check_labels,
    labelled_texts,
    truth_of,
)
from worker.cli.progress import clear_progress, progress_line
from worker.cli.raw_outputs import RawModel
from worker.cli.texts import STDIN
from worker.core.counted import counted
from worker.core.decisions.calibration import LabelledOutput
from worker.core.decisions.f1 import FEWEST
from worker.core.decisions.folds import folds_of
from worker.core.decisions.held_out import Calibration, calibrate
from worker.errors import ArgumentsError, StreamlabelError
from worker.settings import Loaded, Settings
from worker.settings.model_plan import ModelPlan, plans

OPTIONS: tuple[str, ...] = (
    *(
        "model.",
        "models",
        "decision.",
        "prepare.",
        "input.overflow",
        "input.stride",
        "input.max_windows",
    ),
    *("input.combine", "batch.forward_tokens", "log.level", "log.format"),
)

_FEWEST: Final = 50  # texts; fewer fit their own chance
_ROUGH: Final = 500  # texts; fewer give rough figures
_TOGETHER: Final = 256  # texts labelled between two lines of progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the file of texts, its columns, the folds and the output."""
    usual = Columns()
    parser.add_argument(
        "--texts",
        required=True,
        metavar="FILE",
        help="labelled texts: CSV (UTF-8, with a header), JSON with an object a line (.jsonl), or "
        "- for CSV from standard input",
    )
    parser.add_argument(
        "--column",
        metavar="NAME",
        default=usual.text,
        help="column or member of the texts [default: %(default)s]",
    )
    parser.add_argument(
        "--labels",
        metavar="NAME",
        help="column or member of the labels [default: label, or labels]",
    )
    parser.add_argument(
        "--separator",
        metavar="S",
        default=usual.separator,
        help="between several labels of one cell [default: %(default)s]",
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="N",
        choices=range(2, 21),
        default=5,
        help="parts that the texts are divided into, 2 to 20 [default: %(default)s]",
    )
    parser.add_argument(
        "--name", metavar="NAME", help="the model, if [models.NAME] has several [default: [model]]"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the settings to this file (TOML)"
    )
    parser.add_argument("--force", action="store_true", help="overwrite an existing --output")


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Label the texts, calibrate, print the figures, print or write the settings; return 0.

    Raises:
        StreamlabelError: the file, its labels or its number of texts can't be used, or the model
            can't be loaded.
    """
    settings = loaded.settings
    chosen = "level" in settings.log.model_fields_set
    logs.configure(settings.log.level if chosen else "warning", settings.log.format)
    if args.output:
        _require_free(args.output, loaded.file, overwrite=args.force)
    plan, file = _plan(settings, args.name), _named(args.texts)
    rows, bad = _read(args.texts, Columns(args.column, args.labels, args.separator))
    _require_texts(file, rows, bad)
    model = RawModel(plan.settings)
    outputs, more = _outputs(file, rows, model)
    tell_bad_rows(file, sorted(bad + more))
    _require_texts(file, outputs, bad + more)
    _require_labels(file, outputs, model.labels, independent=model.independent)
    truths = [one.truth for one in outputs.values()]
    found = calibrate(
        list(outputs.values()),
        folds_of([row.text for row in outputs], truths, args.folds),
        model.rescale,
        independent=model.independent,
    )
    print(f"{model.name}: {counted(len(outputs), 'text')} of {file}, {args.folds} folds")
    if len(outputs) < _ROUGH:
        print(f"  fewer than {_ROUGH} texts: the figures are rough")
    print("\n".join(report(found, model.labels, independent=model.independent)))
    _write(args.output, _settings(found, model, plan, file))
    return 0


def _require_free(output: Path, settings_file: Path | None, *, overwrite: bool) -> None:
    """Raise an ArgumentsError if the file can't be written, or would replace another's content."""
    if not output.parent.is_dir():
        raise ArgumentsError(f"--output {output}: there is no such directory; make it first")
    if settings_file and output.exists() and output.samefile(settings_file):
        raise ArgumentsError(
            f"--output {output} is the settings file in use, and its other settings would be lost: "
            "name another file"
        )
    if output.is_file() and not overwrite:
        raise ArgumentsError(f"--output {output} exists: overwrite it with --force")


def _named(file: str) -> str:
    return "standard input" if file == STDIN else file


def _plan(settings: Settings, name: str | None) -> ModelPlan:
    """Return the plan of the model of this name, or of the only one."""
    found = {plan.name: plan for plan in plans(settings)}
    if name in found or (name is None and len(found) == 1):
        return found.get(name) or next(iter(found.values()))
    if not settings.models:
        raise ArgumentsError(f"--name {name}: the settings have only [model]; leave --name out")
    raise ArgumentsError(f"choose a model with --name: {', '.join(settings.models)}")


def _read(file: str, columns: Columns) -> tuple[list[LabelledText], list[BadRow]]:
    rows: list[LabelledText] = []
    bad: list[BadRow] = []
    for row in labelled_texts(file, columns):
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            rows.append(row)
    return rows, bad


def _require_texts(file: str, usable: Sized, bad: Sequence[BadRow]) -> None:
    if len(usable) < _FEWEST:
        left_out = f" ({counted(len(bad), 'row')} left out, such as {_first(bad)})" if bad else ""
        raise StreamlabelError(
            f"{file} has {counted(len(usable), 'usable text')}{left_out}, and a calibration needs "
            f"{_FEWEST}: label more, better {_ROUGH}"
        )


def _first(bad: Sequence[BadRow]) -> str:
    return f"line {bad[0].line}: {bad[0].why}"


def _outputs(
    file: str, rows: Sequence[LabelledText], model: RawModel
) -> tuple[dict[LabelledText, LabelledOutput], list[BadRow]]:
    """Return what the model gives for each text that it can label, and the rows without."""
    check_labels(file, rows, model.labels)
    outputs: dict[LabelledText, LabelledOutput] = {}
    bad: list[BadRow] = []
    shown = progress_line()
    for start in range(0, len(rows), _TOGETHER):
        taken = rows[start : start + _TOGETHER]
        for row, output in zip(taken, model.label([row.text for row in taken]), strict=True):
            truth = truth_of(row, model.labels, independent=model.independent)
            if isinstance(truth, BadRow):
                bad.append(truth)
            elif isinstance(output, str):
                bad.append(BadRow(row.line, output))
            else:
                outputs[row] = LabelledOutput(output, truth)
        shown(file, start + len(taken), len(rows))
    clear_progress()
    return outputs, bad


def _require_labels(
    file: str,
    outputs: Mapping[LabelledText, LabelledOutput],
    labels: Sequence[str],
    *,
    independent: bool,
) -> None:
    """Raise a StreamlabelError if the texts' labels can't tell good probabilities from bad ones."""
    counts = Counter(label for one in outputs.values() for label in one.truth)
    if independent:
        if not any(FEWEST <= count <= len(outputs) - FEWEST for count in counts.values()):
            raise StreamlabelError(
                f"{file} has no label that {FEWEST} texts have and {FEWEST} lack: label more texts"
            )
    elif len(counts) == 1:
        raise StreamlabelError(
            f"all texts of {file} have the label {labels[next(iter(counts))]!r}: add texts of the "
            "others, in their usual shares"
        )


def _settings(found: Calibration, model: RawModel, plan: ModelPlan, file: str) -> Iterator[str]:
    """Yield the lines of the table that the worker reads."""
    before, after = found.before, found.after
    fitted = {"temperature": found.fit.temperature}
    thresholds = {model.labels[label]: own for label, own in found.thresholds.items()}
    kept = plan.decision.model_dump(exclude_defaults=True)
    table = "decision" if plan.name is None else f"models.{plan.name}.decision"
    title = (
        f"streamlabel calibrate: {model.name}, {file}",
        f"expected calibration error {before.error:.4f} before, {after.error:.4f} after",
    )
    own = {**fitted, "threshold": thresholds} if thresholds else fitted
    return settings_lines(title, table, kept | own)


def _write(file: Path | None, lines: Iterable[str]) -> None:
    text = "\n".join(lines)
    if file is None:
        print(f"\n{text}")
        return
    try:
        file.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise StreamlabelError(f"can't write {file}: {error.strerror}") from None
    print(f"\nwrote {file}")
