"""Labels records without Kafka, with the models and conditions that a worker would use.

Owns: nothing; `load_models` returns a function that has the models.
Thread: main.
Must not import: torch or transformers, until a model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from worker.cli.texts import STDIN, lines
from worker.core.decisions.treatment import treatment
from worker.core.decoder import Decoder
from worker.core.records import InvalidRecord, MicroBatch, ModelCard, Outcome, RawRecord, RecordRef
from worker.core.records import WorkItem as Item
from worker.errors import SettingsError, StreamlabelError
from worker.settings import PLAIN_FORMATS, InputSettings, Settings, plans

Entry = Item | InvalidRecord
Label = Callable[[Sequence[Entry]], list[Outcome]]

_TOGETHER: Final = 256  # records labelled together


def load_models(settings: Settings) -> tuple[ModelCard, Label]:
    """Load every model; return their card, and a function that labels records with them.

    Raises:
        StreamlabelError: a model can't be loaded.
    """
    from worker.clock import SystemClock
    from worker.core.model import no_step
    from worker.core.model_set import ModelSet, SetMember
    from worker.inference.warm import load
    from worker.metrics import Metrics
    from worker.runtime.labellers import AnyLabeller, Panel
    from worker.runtime.labelling import Labeller

    def member(name: str | None) -> SetMember:
        (plan,) = (plan for plan in plans(settings) if plan.name == name)
        tokens = settings.batch.forward_tokens
        return SetMember(plan, *load(plan.options, tokens, treatment=treatment(plan.settings)))

    def beside(one: SetMember) -> Labeller:
        refuse = one.plan.windows.overflow == "dead_letter"
        return Labeller.beside(one.tokeniser, one.classifier, refuse_long=refuse)

    members = [member(plan.name) for plan in plans(settings)]
    labeller: AnyLabeller = beside(members[0])
    if settings.models:
        labeller = Panel(ModelSet(members), beside, Metrics(), SystemClock())

    def label(entries: Sequence[Entry]) -> list[Outcome]:
        batch = MicroBatch(tuple(entries), "ready", 0.0, 0.0)
        return labeller.tokenise(batch, no_step).infer(no_step)

    return labeller.card, label


def entries_of_texts(texts: Iterable[str]) -> list[Entry]:
    """Return texts as records that have no other field."""
    return [Item(_raw(None), text, payload={}) for text in texts]


def entries_of_records(files: Iterable[str], settings: InputSettings) -> Iterator[list[Entry]]:
    """Yield the records of files, one JSON object or text a line, some at a time.

    Args:
        files: paths, or `-` for standard input.
        settings: say where the text is.

    Raises:
        StreamlabelError: a file can't be read.
        SettingsError: the records are in a format that a line can't hold.
    """
    if settings.format not in PLAIN_FORMATS:
        raise SettingsError(
            f'--records reads one JSON object a line, and input.format is "{settings.format}": add '
            "--input-format json"
        )
    decoder = Decoder(settings)
    for file in files:
        for batch in _lines(file):
            records = [_raw(line.encode()) for line in batch if line.strip()]
            for begin in range(0, len(records), _TOGETHER):
                yield [decoder.decode(record) for record in records[begin : begin + _TOGETHER]]


def _lines(file: str) -> Iterator[list[str]]:
    import sys

    if file == STDIN:
        yield from lines(sys.stdin.buffer)
        return
    try:
        with Path(file).open("rb") as opened:
            yield from lines(opened)
    except OSError as error:
        raise StreamlabelError(f"can't read {file}: {error.strerror}") from None


def _raw(value: bytes | None) -> RawRecord:
    return RawRecord(RecordRef("", 0, 0, 0), 0, None, value, (), 0.0)
