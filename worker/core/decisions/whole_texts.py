"""Puts the predictions of a text's windows together, which may come from several passes.

Owns: the predictions of texts whose windows are not all computed.
Thread: infer; pure.
Must not import: anything but core.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from worker.core.decisions.windows import Extent, combined
from worker.core.faults import Failed
from worker.core.records import ModelCard, ModelInput, Prediction

Result = Prediction | Failed


def whole_texts(
    results: Iterator[tuple[int, Result]], model_input: ModelInput, card: ModelCard
) -> Iterator[tuple[int, Result]]:
    """Return each text's position and result, as soon as its last window has one.

    A text fails if one of its windows does, with the error of the first.

    Args:
        results: position and result of each row, in the order of `model_input`.
        model_input: the rows, with all windows of each text.
        card: of the model; its plan combines them. Without one each row is a text.
    """
    return _gathered(results, model_input, card) if card.windows else results


def _gathered(
    results: Iterator[tuple[int, Result]], model_input: ModelInput, card: ModelCard
) -> Iterator[tuple[int, Result]]:
    expected = Counter(model_input.positions)
    extents = dict(zip(model_input.positions, model_input.extents, strict=True))
    known: defaultdict[int, list[Result]] = defaultdict(list)
    for position, result in results:
        known[position].append(result)
        if len(known[position]) == expected[position]:
            windows = known.pop(position)
            failed = next((window for window in windows if isinstance(window, Failed)), None)
            predictions = [window for window in windows if isinstance(window, Prediction)]
            yield position, failed or _joined(predictions, extents[position], card)


def _joined(windows: Sequence[Prediction], extent: Extent, card: ModelCard) -> Prediction:
    assert card.windows  # noqa: S101 - for mypy: the caller has asked
    return replace(
        windows[0],
        probabilities=combined(
            card.windows,
            [window.probabilities for window in windows],
            [window.token_count for window in windows],
            sums_to_one=card.activation == "softmax",
        ),
        token_count=extent.read,
        windows=len(windows),
        total_tokens=extent.total,
    )
