"""The model's tokenizer as transformers loads it: whether it is whole, and fits the model.

Runs at start, before a record is read. Must not import torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from worker.core.visible import excerpt
from worker.errors import ModelUnavailable
from worker.inference.checkpoint import VOCABULARIES, Checkpoint
from worker.inference.tokeniser import special_tokens
from worker.logs import get_logger

_SHOWN = 40  # characters of a token
_NAMED = 5  # tokens

log = get_logger(__name__)


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer of the checkpoint's files, or of none where its kind needs none.

    Raises:
        ModelUnavailable: its vocabulary is missing or damaged.
        Exception: whatever else transformers makes of the files.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        # Transformers takes a file that is no SentencePiece model for one of tiktoken's.
        if "tiktoken" not in str(error):
            raise
        files = ", ".join(file.name for file in _sentence_pieces(checkpoint.folder))
        raise ModelUnavailable(
            f"{checkpoint.name} can't be used: {files} can't be read as a SentencePiece model; "
            "fetch or save it again"
        ) from error
    # Without its files transformers makes up a tokenizer that knows nothing. Those that count
    # characters or bytes (CANINE, Perceiver) have none.
    if not checkpoint.has_vocabulary and tokenizer.vocab_files_names:
        raise ModelUnavailable(
            f"{checkpoint.name} has no tokenizer files ({', '.join(VOCABULARIES)}): "
            "save its tokenizer beside the weights with tokenizer.save_pretrained(...)"
        )
    _tell_bare(tokenizer, checkpoint.name)
    return tokenizer


def _tell_bare(tokenizer: Any, name: str) -> None:
    """FNet's and RemBERT's come out of a SentencePiece file alone without what they put around texts."""
    ends = {tokenizer.cls_token_id, tokenizer.sep_token_id}
    around = {number for side in special_tokens(tokenizer) for number in side}
    if None not in ends and not ends & around:
        log.warning(
            "the tokenizer has special tokens for the ends of a text, and transformers does not put "
            "them there: if the model was trained with them, save its tokenizer as tokenizer.json",
            tokens=f"{tokenizer.cls_token} {tokenizer.sep_token}",
            model=name,
        )


def _sentence_pieces(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.model"))


def ids_within(tokenizer: Any, rows: int | None, name: str) -> int | None:
    """The bound that ids must stay below, or None if the tokenizer gives no others.

    A token that was added to the tokenizer, and not to the model, spoils the texts that have it; a
    token that each text has, or a vocabulary that is another model's, spoils all.

    Args:
        tokenizer: of transformers.
        rows: of the model's embedding, if they are known.
        name: of the model.

    Raises:
        ModelUnavailable: the tokenizer is not this model's.
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab() if rows else {}
    outside = {token: number for token, number in vocabulary.items() if number >= (rows or 0)}
    if not outside or rows is None:
        return None
    before, after = special_tokens(tokenizer)
    in_every_text = {*before, *after, tokenizer.unk_token_id} & set(outside.values())
    foreign = outside.keys() - tokenizer.get_added_vocab().keys()
    if in_every_text or foreign:
        spoilt = {t: n for t, n in outside.items() if t in foreign or n in in_every_text}
        raise ModelUnavailable(
            f"{name} can't be used: its tokenizer gives ids that its weights have no embedding "
            f"for, {_named(spoilt)}, where there are {rows:,} rows: save tokenizer and model "
            "together, after model.resize_token_embeddings(len(tokenizer))"
        )
    log.warning(
        "texts with these tokens can't be labelled, the model has no embedding for them: save it "
        "after model.resize_token_embeddings(len(tokenizer))",
        tokens=_named(outside),
        rows=rows,
        model=name,
    )
    return rows


def _named(tokens: dict[str, int]) -> str:
    first = sorted(tokens.items(), key=lambda pair: pair[1])[:_NAMED]
    shown = ", ".join(f"'{excerpt(token, _SHOWN)}' ({number})" for token, number in first)
    more = len(tokens) - len(first)
    return f"{shown} and {more:,} more" if more else shown
