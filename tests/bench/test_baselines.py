"""The baselines of engines count and multiply correctly."""

from __future__ import annotations

import pytest
import torch

from tests.support.models import make_checkpoint
from worker.bench.baselines import Arithmetic, MatrixProducts, PlainPipeline
from worker.clock import SystemClock
from worker.settings import ModelSettings


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> PlainPipeline:
    """Provide a model of one layer: hidden size 16, intermediate size 32, two labels."""
    folder = make_checkpoint(tmp_path_factory.mktemp("plain") / "tiny")
    return PlainPipeline(ModelSettings(name=str(folder)), "cpu", 64)


def test_the_pipeline_labels_every_text(plain: PlainPipeline) -> None:
    """Labels keep the order of the texts; long texts are truncated."""
    labels = plain.label(["good", "bad " * 500, "good"])
    assert len(labels) == 3
    assert labels[0] == labels[2]


def test_linears_are_counted_per_token_or_per_text(plain: PlainPipeline) -> None:
    """Attention and feed-forward linears process tokens, the two of the head process texts."""
    arithmetic = plain.arithmetic()
    hidden = 16
    assert arithmetic.per_token == 4 * hidden * hidden + 2 * hidden * 32
    assert arithmetic.per_text == hidden * hidden + 2 * hidden
    assert arithmetic.attention == hidden


def test_flop_follow_the_formula() -> None:
    """2*T*per_token + 2*per_text + 4*T*T*attention."""
    arithmetic = Arithmetic(shapes={(2, 3): 4}, per_text=5, attention=7)
    assert arithmetic.flop(10) == 2 * 10 * 24 + 2 * 5 + 4 * 100 * 7


def test_products_are_timed_in_every_way() -> None:
    """Two linears of one shape count twice."""
    products = MatrixProducts(Arithmetic({(8, 4): 2}, 0, 0), 16, "float32", "cpu")
    assert products.flop == 2 * 16 * 8 * 4 * 2
    assert "torch.mm" in products.ways
    assert ("torch.mm, side by side" in products.ways) is (torch.get_num_threads() > 1)
    assert all(products.seconds(way, SystemClock()) > 0 for way in products.ways)


def test_products_of_8_bit_integers_are_timed() -> None:
    """The same shapes, with the kernels for 8-bit integers."""
    products = MatrixProducts(Arithmetic({(64, 32): 2}, 0, 0), 64, "int8", "cpu")
    assert products.ways
    assert all("int8" in way or "int_mm" in way for way in products.ways)
    assert all(products.seconds(way, SystemClock()) > 0 for way in products.ways)


@pytest.mark.parametrize(("dtype", "device"), [("int4", "cpu"), ("int8", "cuda")])
def test_a_number_type_without_products_is_refused(dtype: str, device: str) -> None:
    with pytest.raises(ValueError, match=f"{dtype} on {device}"):
        MatrixProducts(Arithmetic({}, 0, 0), 16, dtype, device)
