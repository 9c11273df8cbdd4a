"""Counts the comparison of two loaded models in metrics that name both.

Owns: the series of one comparison. A change of either model begins another one.
Thread: infer.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from worker.core.records import Classified, ModelCard
from worker.core.shadow import Comparison, LabelPairing, TextComparison, exclusive_labels
from worker.logs import get_logger
from worker.metrics import DIVERGENCE_BUCKETS, Metrics, observe_all
from worker.settings import ShadowSettings

log = get_logger(__name__)


class CountedComparison:
    """The comparison of two loaded models, in metrics that carry both names.

    Attributes:
        model: the first model.
        seconds: takes the time of each group of texts.
    """

    def __init__(
        self,
        model: ModelCard,
        shadow: ModelCard,
        settings: ShadowSettings,
        metrics: Metrics,
        now_ms: int,
    ) -> None:
        self.model, self._metrics = model, metrics
        self._sums = Comparison(DIVERGENCE_BUCKETS)
        self._name = f"{model.weights_sha256[:12]}/{shadow.weights_sha256[:12]}"
        self._pairing = LabelPairing(
            model.labels,
            shadow.labels,
            _names(model) | settings.labels,
            exclusive=exclusive_labels(model.activation, shadow.activation),
            merged=model.decision is not None,
        )
        self._texts = metrics.shadow_texts.labels(self._name)
        self._agreed = metrics.shadow_agreed.labels(self._name)
        self._divergence = metrics.shadow_divergence.labels(self._name)
        self.seconds = metrics.shadow_seconds.labels(self._name)
        metrics.shadow_since.labels(self._name).set(now_ms / 1000)
        metrics.shadow_model.info(_facts(self._name, model, shadow))
        self._log(model, shadow, settings)

    def _log(self, model: ModelCard, shadow: ModelCard, settings: ShadowSettings) -> None:
        unpaired = self._pairing.unpaired
        log.info(
            "comparing with a shadow",
            model=model.name,
            shadow=shadow.name,
            comparison=self._name,
            share=settings.share,
            divergence=not unpaired,
        )
        if unpaired:
            log.warning(
                "the shadow has other labels than the model: they are compared by name, without a "
                "divergence; shadow.labels gives the names that stand for each other",
                unpaired=unpaired[:20],
            )

    def compare(self, ours: Classified, theirs: Classified) -> TextComparison:
        """Compare the predictions for one text."""
        return self._pairing.compare(ours.prediction.probabilities, theirs.prediction.probabilities)

    def count(self, compared: Sequence[TextComparison]) -> None:
        """Count texts in the metrics."""
        pairs = Counter(pair for one in compared if (pair := self._sums.note(one)))
        divergences = [one.divergence for one in compared if one.divergence is not None]
        with self._metrics.lock:
            self._texts.inc(len(compared))
            self._agreed.inc(len(compared) - pairs.total())
            observe_all(self._divergence, divergences)
            for (label, shadow_label), number in pairs.items():
                self._metrics.shadow_flips.labels(self._name, label, shadow_label).inc(number)


def _names(model: ModelCard) -> dict[str, str]:
    """Return the names that the model's decision gives its labels: the shadow gets them too."""
    return dict(model.decision.decision.names) if model.decision else {}


def _facts(comparison: str, model: ModelCard, shadow: ModelCard) -> dict[str, str]:
    return shadow.facts | {
        "comparison": comparison,
        "model": model.name,
        "shadow": shadow.name,
        "weights": shadow.weights_sha256[:12],
    }
