"""Loads the model's tokenizer, and checks that it is complete and fits the model.

Owns: the checks of a tokenizer.
Thread: load, before a record is read.
Must not import: torch.
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
    """Load the tokenizer from the checkpoint's files; some kinds have none.

    Raises:
        ModelUnavailable: its vocabulary is missing or damaged.
        Exception: any other error of transformers.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        # Transformers tries a file that is not a SentencePiece model as one of tiktoken's.
        if "tiktoken" not in str(error):
            raise
        files = ", ".join(file.name for file in _sentence_pieces(checkpoint.folder))
        raise ModelUnavailable(
            f"{checkpoint.name} can't be used: {files} can't be read as a SentencePiece model; "
            "download or save it again"
        ) from error
    # Without files transformers returns a tokenizer with an empty vocabulary. Tokenizers of
    # characters or bytes (CANINE, Perceiver) need no files.
    if not checkpoint.has_vocabulary and tokenizer.vocab_files_names:
        raise ModelUnavailable(
            f"{checkpoint.name} has no tokenizer files ({', '.join(VOCABULARIES)}): "
            "save its tokenizer in the model's folder with tokenizer.save_pretrained(...)"
        )
    _warn_of_missing_special_tokens(tokenizer, checkpoint.name)
    return tokenizer


def _warn_of_missing_special_tokens(tokenizer: Any, name: str) -> None:
    """Warn of tokenizers like FNet's and RemBERT's, loaded from a SentencePiece file only.

    Such a tokenizer does not put special tokens around texts.
    """
    ends = {tokenizer.cls_token_id, tokenizer.sep_token_id}
    around = {number for side in special_tokens(tokenizer) for number in side}
    if None not in ends and not ends & around:
        log.warning(
            "transformers does not add this tokenizer's special tokens: if the model was trained "
            "with them, save its tokenizer as tokenizer.json",
            tokens=f"{tokenizer.cls_token} {tokenizer.sep_token}",
            model=name,
        )


def _sentence_pieces(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.model"))


def ids_within(tokenizer: Any, rows: int | None, name: str) -> int | None:
    """Return the bound that ids must stay below, or None if all ids have an embedding.

    A token that was added to the tokenizer, and not to the model, affects the texts that contain
    it. A token of every text, or another model's vocabulary, affects all texts.

    Args:
        tokenizer: the tokenizer of transformers.
        rows: number of rows of the model's embedding, if known.
        name: the model's name.

    Raises:
        ModelUnavailable: the tokenizer belongs to another model.
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab() if rows else {}
    outside = {token: number for token, number in vocabulary.items() if number >= (rows or 0)}
    if not outside or rows is None:
        return None
    before, after = special_tokens(tokenizer)
    in_every_text = {*before, *after, tokenizer.unk_token_id} & set(outside.values())
    foreign = outside.keys() - tokenizer.get_added_vocab().keys()
    if in_every_text or foreign:
        tokens = {t: n for t, n in outside.items() if t in foreign or n in in_every_text}
        raise ModelUnavailable(
            f"{name} can't be used: its tokenizer returns ids that its weights have no embedding "
            f"for, {_named(tokens)}, with {rows:,} rows: save tokenizer and model together, after "
            "model.resize_token_embeddings(len(tokenizer))"
        )
    log.warning(
        "model has no embedding for some tokens, texts with them become dead letters: save the "
        "model after model.resize_token_embeddings(len(tokenizer))",
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
