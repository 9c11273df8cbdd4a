"""Makes a BigBird model choose its attention by each pass alone, not by earlier texts.

BigBird and its relatives attend to all of a short text, and to blocks of a long one. After the
first short text, transformers' BigBird attends to all of every text.

Owns: the hook that resets the attention before each pass.
Thread: load; the hook runs on the infer thread.
Must not import: transformers; it is given a model.
"""

from __future__ import annotations

from typing import Any

from torch import nn

_ALL, _BLOCKS = "original_full", "block_sparse"


def choose_per_pass(model: Any) -> None:
    """Make each pass choose its attention by the length of its own texts."""
    if turning_point(model.config):
        stack = next(module for module in model.modules() if _switches(module))
        stack.register_forward_pre_hook(_choose, with_kwargs=True)


def turning_point(config: Any) -> int:
    """Return the tokens from which the model attends to blocks; 0 if it attends to whole texts."""
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
