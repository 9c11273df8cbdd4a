"""Keeps a special token that a text spells, such as `</s>`, from being read as the token.

transformers reads it as the token by default: a writer could end the text for the model, or part
it. `split_special_tokens` turns that off, but not in a tokenizer whose vocabulary has the token as
a usual piece, such as XLM-RoBERTa's. There its id is replaced by the ids of its characters.

Owns: the ids that stand for a token that is spelt.
Thread: tokenise; made on the thread that loads the model.
Must not import: torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

Ids = tuple[int, ...]
Encode = Callable[[list[str]], list[list[int]]]

# Around a token, so that a tokenizer reads it as within a text.
_TEXT: Final = "a {} b"


class SpeltTokens:
    """The special tokens that a tokenizer would read in a text, and their spelling.

    Args:
        ids: of each such token, those of its characters.
    """

    def __init__(self, ids: dict[int, Ids]) -> None:
        self._ids = ids

    def replaced(self, contents: list[list[int]]) -> list[list[int]]:
        """Return the ids of texts without those of special tokens."""
        return [
            content if self._ids.keys().isdisjoint(content) else self._replaced(content)
            for content in contents
        ]

    def _replaced(self, content: Sequence[int]) -> list[int]:
        return [part for one in content for part in self._ids.get(one, (one,))]


def spelt_tokens(tokenizer: Any, encode: Encode) -> SpeltTokens | None:
    """Return the tokens that the tokenizer reads in a text although it is told to split them.

    Args:
        tokenizer: of transformers.
        encode: returns the ids of texts, without the special tokens around them.
    """
    special = {tokenizer.convert_tokens_to_ids(t): t for t in tokenizer.all_special_tokens}
    # Characters that the vocabulary lacks are unknown in any text.
    special.pop(tokenizer.unk_token_id, None)
    texts = [_TEXT.format(token) for token in special.values()]
    read = dict(zip(special, encode(texts) if texts else (), strict=True))
    wrong = {number: special[number] for number, ids in read.items() if number in ids}
    if not wrong:
        return None
    apart = [" ".join(token) for token in wrong.values()]
    spelt = (tuple(i for i in ids if i not in special) for ids in encode(apart))
    return SpeltTokens(dict(zip(wrong, spelt, strict=True)))
