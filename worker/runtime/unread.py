"""The outcome of a text that gets no label: it failed, or the own function skipped it.

Owns: the dead letters of failed texts, and the outcome of a repeated text.
Thread: tokenise and infer; pure.
Must not import: kafka, torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from schemas.dead_letter import DeadLetterReason
from worker.core.faults import Failed, stack_hash
from worker.core.records import DeadLettered, Filtered, ModelCard, Outcome, WorkItem
from worker.errors import RecordRejected, StreamlabelError, TextSkipped

SKIPPED: Final = "prepare.function"  # the reason of a skipped record
_NO_NOTE: Final = (
    "prepare.function skips this text, and output.filtered_topic is not set, where its note belongs"
)


def unread(
    item: WorkItem, failed: Failed, card: ModelCard, *, skips: bool
) -> DeadLettered | Filtered:
    """Return the outcome of a text that could not be prepared or tokenised, or that is skipped.

    Args:
        item: the record.
        failed: its error.
        card: of the model.
        skips: whether there is a topic for the note of a skipped record.
    """
    error, reason = failed.error, DeadLetterReason.TOKENISER_FAILED
    if isinstance(error, TextSkipped):
        if skips:
            return Filtered(item, SKIPPED, model=card)
        unnoted = RecordRejected(DeadLetterReason.PREPARE_FAILED, _NO_NOTE)
        return unread(item, Failed(unnoted, failed.attempts), card, skips=skips)
    if isinstance(error, RecordRejected):
        reason = DeadLetterReason(error.reason)
    return dead_letter(item, failed, reason, card)


def dead_letter(
    item: WorkItem, failed: Failed, reason: DeadLetterReason, card: ModelCard
) -> DeadLettered:
    """Return the dead letter of a text that failed in the tokenizer or the model."""
    # The message of a library's error may quote the text; its type and the stack's hash do not.
    message = type(failed.error).__name__
    if isinstance(failed.error, StreamlabelError):
        message = f"{message}: {failed.error}"
    return DeadLettered(
        item.record,
        reason,
        message,
        stack_hash=stack_hash(_origin(failed.error)),
        attempt=failed.attempts,
        model=card,
    )


def _origin(error: Exception) -> BaseException:
    """Return the error that the own function raised, for a text that could not be prepared."""
    return error.__cause__ or error if isinstance(error, RecordRejected) else error


def same_outcome(item: WorkItem, outcome: Outcome) -> Outcome:
    """Return the outcome of a text for another record with the same text."""
    if isinstance(outcome, DeadLettered):
        return replace(outcome, record=item.record)
    return replace(outcome, item=item)


def too_long(item: WorkItem, model: ModelCard) -> DeadLettered:
    """Return the dead letter of a text that is not to be truncated."""
    return DeadLettered(
        item.record,
        DeadLetterReason.TOO_MANY_TOKENS,
        'the text has more tokens than the model takes, and input.overflow is "dead_letter"',
        model=model,
    )
