"""Compares two models over the same texts: which texts, which labels, how far apart.

Owns: the choice of a shadow's texts, the comparison of two predictions, and their sums.
Thread: infer in a worker, main in `streamlabel shadow report`; pure.
Must not import: any other module of the worker but records.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from worker.core.records import Activation

OTHERS: Final = "(others)"  # stands for the labels of pairs beyond the bound
_DIGEST_BYTES: Final = 8
_Z: Final = 1.959964  # of the normal distribution, for an interval of 95 %


def is_chosen(topic: str, partition: int, offset: int, share: float) -> bool:
    """Return whether a record is one of the share that a shadow sees.

    It is if the first 8 bytes of SHA-256 of `topic/partition/offset`, as a big-endian number, are
    below `share` * 2**64. So parallel workers, a worker that starts again and a count made later
    from the topics choose the same records, and a smaller share is a part of a larger one.
    """
    digest = hashlib.sha256(f"{topic}/{partition}/{offset}".encode()).digest()
    return int.from_bytes(digest[:_DIGEST_BYTES], "big") < int(share * 2 ** (8 * _DIGEST_BYTES))


class TextComparison(NamedTuple):
    """Two models' predictions for one text.

    Attributes:
        label: the first model's most probable label.
        shadow_label: the second's, by the first one's name for it if it has one.
        divergence: between the two, bits; None if the models' labels differ.
    """

    label: str
    shadow_label: str
    divergence: float | None

    @property
    def agrees(self) -> bool:
        """True if both have the same label."""
        return self.label == self.shadow_label


class LabelPairing:
    """Compares the predictions of two models, whose labels may differ in name, order and number.

    A label of the shadow stands for the model's label that `names` gives it, else for the one of
    the same name, else for the one whose name differs in case alone. Several may stand for one.

    Args:
        labels: the model's, in the order of its probabilities.
        shadow_labels: the shadow's.
        names: the shadow's label -> the model's.
        exclusive: whether exactly one label applies to a text in both models.
        merged: whether the shadow's label is the most probable one after the merge, as the model's
            is after its decision.
    """

    def __init__(
        self,
        labels: Sequence[str],
        shadow_labels: Sequence[str],
        names: Mapping[str, str],
        *,
        exclusive: bool,
        merged: bool = False,
    ) -> None:
        by_case = {label.casefold(): label for label in reversed(labels)}
        self._labels, self._exclusive, self._merged = tuple(labels), exclusive, merged
        self._names = [
            names.get(name) or (name if name in labels else by_case.get(name.casefold(), name))
            for name in shadow_labels
        ]
        self.unpaired = sorted(set(labels) ^ set(self._names))

    def compare(self, ours: Sequence[float], theirs: Sequence[float]) -> TextComparison:
        """Compare the probabilities of both models' labels, each in its model's order."""
        label, shadow_label = self._labels[_best(ours)], self._names[_best(theirs)]
        if self.unpaired:
            return TextComparison(label, shadow_label, None)
        joined = dict.fromkeys(self._labels, 0.0)
        for name, p in zip(self._names, theirs, strict=True):
            # Independent labels: the probability that one of them applies.
            joined[name] += p if self._exclusive else p * (1 - joined[name])
        q = [joined[name] for name in self._labels]
        distance = divergence(ours, q, exclusive=self._exclusive)
        return TextComparison(
            label, self._labels[_best(q)] if self._merged else shadow_label, distance
        )


def exclusive_labels(*activations: Activation) -> bool:
    """Return whether exactly one label applies to a text in models with these activations."""
    return set(activations) == {"softmax"}


def _best(probabilities: Sequence[float]) -> int:
    return probabilities.index(max(probabilities))


def divergence(p: Sequence[float], q: Sequence[float], *, exclusive: bool = True) -> float:
    """Return the Jensen-Shannon divergence of two predictions, in bits: 0 equal, 1 disjoint.

    It is H((p + q) / 2) - (H(p) + H(q)) / 2 with entropies H of base 2 (Lin, "Divergence Measures
    Based on the Shannon Entropy", IEEE Transactions on Information Theory 37, 1991). Independent
    labels are no distribution over labels: each label has two outcomes of its own, and the result
    is the mean of the labels' divergences.

    Args:
        p: probabilities of the labels.
        q: the same by another model, in the same order.
        exclusive: whether exactly one label applies.
    """
    if exclusive:
        return _jensen_shannon(p, q)
    pairs = zip(p, q, strict=True)
    return sum(_jensen_shannon((a, 1 - a), (b, 1 - b)) for a, b in pairs) / len(p)


def _jensen_shannon(p: Sequence[float], q: Sequence[float]) -> float:
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return min(1.0, max(0.0, _entropy(middle) - (_entropy(p) + _entropy(q)) / 2))


def _entropy(p: Sequence[float]) -> float:
    return -sum(a * math.log2(a) for a in p if a > 0)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the bounds of the 95 % confidence interval of a share; 0 and 1 for no trials.

    Wilson's score interval ("Probable Inference, the Law of Succession, and Statistical Inference",
    JASA 22, 1927). It holds for few trials and for shares near 0 and 1, where the usual interval
    leaves the range. It assumes independent texts.
    """
    if not trials:
        return 0.0, 1.0
    share, z2 = successes / trials, _Z * _Z / trials
    middle = share + z2 / 2
    half = _Z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials))
    return max(0.0, (middle - half) / (1 + z2)), min(1.0, (middle + half) / (1 + z2))


class Comparison:
    """The sums of many comparisons, in bounded memory.

    Args:
        bounds: of the divergences that are counted together, ascending, bits.
        pairs: different flips that are counted apart; further ones count as `OTHERS`.

    Attributes:
        texts, agreed: numbers of texts.
        flips: (the model's label, the shadow's) -> number of texts.
        divergences: number of texts up to each of the bounds, and above.
        total_divergence: sum, bits.
    """

    def __init__(self, bounds: Sequence[float] = (), pairs: int = 200) -> None:
        self._bounds, self._pairs = bounds, pairs
        self.texts = self.agreed = 0
        self.flips: Counter[tuple[str, str]] = Counter()
        self.divergences = [0] * (len(bounds) + 1)
        self.total_divergence = 0.0

    def note(self, compared: TextComparison) -> tuple[str, str] | None:
        """Add one text; return the pair that it was counted as, or None if the models agree."""
        self.texts += 1
        if compared.divergence is not None:
            self.divergences[bisect_left(self._bounds, compared.divergence)] += 1
            self.total_divergence += compared.divergence
        if compared.agrees:
            self.agreed += 1
            return None
        pair = (compared.label, compared.shadow_label)
        if pair not in self.flips and len(self.flips) >= self._pairs:
            pair = (OTHERS, OTHERS)
        self.flips[pair] += 1
        return pair
