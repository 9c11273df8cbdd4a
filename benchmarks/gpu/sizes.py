"""The sizes of a run: on a GPU, or for a dry run that checks that every part works."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class Sizes:
    """The sizes of a run.

    Attributes:
        device: torch device of the models.
        shape: config members of every model, besides its own.
        dtypes: number types of the models.
        passes: tokens of a forward pass.
        text_tokens: mean tokens of a text; lengths are from half to one and a half of it.
        rounds: timed passes, each with new texts.
        square: side of the matrices whose product defines the peak.
        texts: texts of a tokenised window.
        threads: threads of the tokeniser.
        workers: worker processes on the GPU.
        seconds: duration of each step of the whole path.
        backlog: texts in the topic for each worker process.
        largest_backlog: most texts in the topic. The embedded broker took over half a minute to
            answer a single reader of two million.
        feeders: processes that send them.
    """

    device: str
    shape: dict[str, Any]
    dtypes: tuple[str, ...]
    passes: tuple[int, ...]
    text_tokens: tuple[int, ...]
    rounds: int
    square: int
    texts: int
    threads: tuple[int, ...]
    workers: tuple[int, ...]
    seconds: float
    backlog: int
    largest_backlog: int
    feeders: int


FULL: Final = Sizes(
    device="cuda",
    shape={},
    dtypes=("bfloat16", "float16"),
    passes=(1_024, 4_096, 16_384, 65_536),
    text_tokens=(22, 256),
    rounds=20,
    square=8_192,
    texts=4_096,
    threads=(1, 2, 4, 8, 16),
    workers=(1, 2, 4, 8, 16),
    seconds=10.0,
    backlog=250_000,
    largest_backlog=2_000_000,
    feeders=4,
)
TINY: Final = Sizes(
    device="cpu",
    shape={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"intermediate_size": 64, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    dtypes=("float32",),
    passes=(64, 128),
    text_tokens=(8,),
    rounds=2,
    square=128,
    texts=32,
    threads=(1,),
    workers=(1, 2),
    seconds=3.0,  # a pool counts once a second
    backlog=20_000,
    largest_backlog=40_000,
    feeders=1,
)
