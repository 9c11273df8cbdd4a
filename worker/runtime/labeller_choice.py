"""Builds the work of the tokenise and infer stages: one labeller, or a panel of several.

Owns: nothing.
Thread: the main thread before the first poll; the poll thread, if the model changes.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from worker.core.budget import ForwardBudget
from worker.core.cache import PredictionCache
from worker.core.faults import CircuitBreaker
from worker.core.model import Classifier, PreparesTexts, Tokeniser
from worker.core.model_set import ModelSet, SetMember
from worker.runtime.context import WorkerContext
from worker.runtime.labellers import AnyLabeller, Panel
from worker.runtime.labelling import Labeller
from worker.runtime.shared_tokenisers import SharedTokenisers
from worker.settings import ModelPlan, Settings, deciding_digest, plans


def build_labeller(
    settings: Settings, tokeniser: Tokeniser, classifier: Classifier, context: WorkerContext
) -> AnyLabeller:
    """Return the work of the tokenise and infer stages, with one model or several."""
    labeller = _labeller_of(settings, tokeniser, classifier, context)
    if settings.output.filtered_topic is not None:
        # With the card, a record in flight keeps the digest when another model takes over.
        labeller.card = replace(labeller.card, settings_digest=deciding_digest(settings))
    return labeller


def _labeller_of(
    settings: Settings, tokeniser: Tokeniser, classifier: Classifier, context: WorkerContext
) -> AnyLabeller:
    if not isinstance(classifier, ModelSet):
        return _labeller(settings, plans(settings)[0], tokeniser, classifier, context)

    shared = SharedTokenisers()

    def build(member: SetMember) -> Labeller:
        tokeniser = shared.of(member.tokeniser)
        return _labeller(settings, member.plan, tokeniser, member.classifier, context)

    return Panel(classifier, build, context.metrics, context.clock)


def _labeller(
    settings: Settings,
    plan: ModelPlan,
    tokeniser: Tokeniser,
    classifier: Classifier,
    context: WorkerContext,
) -> Labeller:
    card, cache_bytes = classifier.card, settings.cache.max_bytes // len(plans(settings))
    in_a_row, ratio = settings.max_consecutive_dead_letters, settings.max_dead_letter_ratio
    if not plan.required:  # its failures make no dead letters
        in_a_row, ratio = sys.maxsize, 1.0
    if isinstance(tokeniser, PreparesTexts):
        tokeniser.spent = context.metrics.prepare_seconds.inc
    return Labeller(
        tokeniser,
        classifier,
        refuse_long=plan.windows.overflow == "dead_letter",
        breaker=CircuitBreaker(in_a_row, ratio),
        budget=ForwardBudget(card.forward_tokens, pads=card.pads),
        metrics=context.metrics,
        cache=PredictionCache(cache_bytes) if cache_bytes else None,
        skips=settings.output.filtered_topic is not None,
    )
