"""oneDNN's primitives are counted when they are made, and not when they are met again."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.backends import mkldnn

from worker.bench.primitives import primitives_made

WIDTH = 37  # no other test multiplies rows of this width


@pytest.fixture
def multiply() -> Callable[[int], None]:
    """Return a oneDNN product of a number of rows."""
    ops: Any = torch.ops.mkldnn
    weight = ops._reorder_linear_weight(torch.rand(WIDTH, WIDTH), 8)
    return lambda rows: ops._linear_pointwise(torch.rand(rows, WIDTH), weight, None, "none", [], "")


def test_only_new_shapes_make_primitives(multiply: Callable[[int], None]) -> None:
    with torch.inference_mode():
        assert primitives_made(lambda: multiply(5)) == 1
        assert primitives_made(lambda: multiply(5)) == 0
        assert primitives_made(lambda: [multiply(rows) for rows in (5, 6, 7, 6)]) == 2


def test_the_output_of_the_process_is_back_afterwards(
    multiply: Callable[[int], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """Its lines are not printed, also if the work fails."""
    os.write(1, b"before\n")
    with pytest.raises(ZeroDivisionError):
        primitives_made(lambda: (multiply(9), 1 / 0))
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "before\nafter\n"


def test_a_torch_without_onednn_has_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mkldnn, "is_available", lambda: False)
    assert primitives_made(lambda: None) is None
