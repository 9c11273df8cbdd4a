"""`streamlabel` with a thread that dies at its third piece of work.

`python -m tests.support.planted_death THREAD run ...` is a child process of the tests only.
"""

from __future__ import annotations

import itertools
import sys
from typing import Any

from worker.cli.main import main
from worker.core.decoder import Decoder
from worker.core.encoder import Encoder
from worker.runtime.labelling import Labeller

# Python ends a thread that raises SystemExit silently; only the worker can report it.
PLACES: dict[str, tuple[type, str, type[BaseException]]] = {
    "main": (Decoder, "decode", LookupError),
    "tokenise": (Labeller, "tokenise", SystemExit),
    "infer": (Labeller, "infer", SystemExit),
    "publish": (Encoder, "encode", SystemExit),
}


def plant(thread: str) -> None:
    """Make one piece of work of a thread fail."""
    owner, name, death = PLACES[thread]
    work, calls = getattr(owner, name), itertools.count(1)

    def dying(*arguments: Any, **named: Any) -> Any:
        if next(calls) == 3:
            raise death("planted")
        return work(*arguments, **named)

    setattr(owner, name, dying)


if __name__ == "__main__":
    plant(sys.argv.pop(1))
    sys.exit(main())
