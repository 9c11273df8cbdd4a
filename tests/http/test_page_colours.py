"""The colours of labels differ from the card and from one another, for colour-blind people too."""

from __future__ import annotations

import itertools
import re
from importlib.resources import files

import numpy as np
import numpy.typing as npt
import pytest

Array = npt.NDArray[np.float64]

LABELS = [f"l{n}" for n in range(10)]
MEANINGS = ["good", "bad", "neutral"]
# Matrices of red-green colour blindness at severity 1.0, for linear sRGB, from Machado, Oliveira
# and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009.
SEEN = {
    "most people": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
}
# Linear sRGB to OKLab, in which distances are as people see them:
# https://bottosson.github.io/posts/oklab/
CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
OPPONENTS = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def colours(scheme: str) -> dict[str, Array]:
    """Return the page's colours in a scheme, as linear sRGB."""
    sheet = (files("worker") / "web" / "page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", sheet, re.DOTALL)[:2]
    text = light if scheme == "light" else light + dark
    shown = {}
    for name, value in re.findall(r"--([\w-]+): #([0-9a-f]{3,6});", text):
        digits = value if len(value) == 6 else "".join(2 * digit for digit in value)
        channels = np.frombuffer(bytes.fromhex(digits), np.uint8) / 255
        shown[name] = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
    return shown


def contrast(one: Array, other: Array) -> float:
    """Return the contrast of WCAG 2.2, 1 to 21."""
    dark, light = sorted(float(colour @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def distance(one: Array, other: Array, seen: Array) -> float:
    """Return the distance of two colours in OKLab; black and white are 1 apart."""
    first, second = (
        OPPONENTS @ np.cbrt(CONES @ np.clip(seen @ colour, 0, 1)) for colour in (one, other)
    )
    return float(np.linalg.norm(first - second))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_stands_out_from_the_card(scheme: str) -> None:
    shown = colours(scheme)
    for name in (*LABELS, *MEANINGS, "good-deep", "bad-deep"):
        # 3 is what WCAG 2.2, 1.4.11, asks of graphics.
        assert contrast(shown[name], shown["card"]) >= 3, name


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("seen", SEEN)
def test_any_two_colours_differ(scheme: str, seen: str) -> None:
    shown = colours(scheme)
    # 0.02 is just noticeable side by side; areas of a chart lie apart.
    least = 0.09 if seen == "most people" else 0.05
    for one, other in itertools.combinations((*LABELS, *MEANINGS), 2):
        assert distance(shown[one], shown[other], SEEN[seen]) >= least, (one, other)


def test_the_distance_tells_red_and_green_of_one_lightness_apart_only_for_some() -> None:
    red, green = np.array([0.4, 0.05, 0.05]), np.array([0.13, 0.19, 0.02])
    assert distance(red, green, SEEN["most people"]) > 0.15
    assert distance(red, green, SEEN["deuteranopia"]) < 0.05
