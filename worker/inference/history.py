"""Makes a model forget which texts it has seen.

BigBird and its kin look at all of a text where it is short, at blocks of it where it is long; after
the first short text, though, at all of every text. Called at start. Must not import transformers: it is
given a model.
"""

from __future__ import annotations

from typing import Any

from torch import nn

_ALL, _BLOCKS = "original_full", "block_sparse"


def forget(model: Any) -> None:
    """Have each pass choose by the length of its own texts alone."""
    if turning_point(model.config):
        stack = next(module for module in model.modules() if _switches(module))
        stack.register_forward_pre_hook(_choose, with_kwargs=True)


def turning_point(config: Any) -> int:
    """Tokens from which on the model looks at blocks; 0 if it looks at all of every text."""
    if getattr(config, "attention_type", _ALL) != _BLOCKS:
        return 0
    # As in the forward pass of transformers' modeling_big_bird.py: global, sliding, random blocks.
    blocks: int = 5 + 2 * config.num_random_blocks
    return blocks * int(config.block_size) + 1


def _switches(module: nn.Module) -> bool:
    return hasattr(module, "set_attention_type")


def _choose(stack: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    ids = args[0] if args else kwargs["input_ids"]
    long = ids.shape[1] >= turning_point(stack.config)
    stack.set_attention_type(_BLOCKS if long else _ALL)
