"""[shadow]: a second model with the options of the first, checked with the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worker.errors import SettingsError
from worker.settings import Settings, load, plain_values


def settings(**values: Any) -> Settings:
    named = {name.replace("__", "."): value for name, value in values.items()}
    return load(named, environ={}).settings


def test_there_is_no_shadow_by_default() -> None:
    assert not settings().shadow.is_on


def test_it_takes_the_options_of_a_model_and_the_machine_of_the_first() -> None:
    chosen = settings(
        model__name="first",
        model__dtype="bfloat16",
        model__threads=3,
        model__cache_dir=Path("/cache"),
        shadow__name="second",
        shadow__revision="v2",
        shadow__dtype="int8",
        shadow__max_tokens=128,
    )
    model = chosen.model.with_options(chosen.shadow)
    assert (model.name, model.revision, model.dtype, model.max_tokens) == (
        "second",
        "v2",
        "int8",
        128,
    )
    assert (model.threads, model.cache_dir) == (3, Path("/cache"))
    assert chosen.model.name == "first"


def test_it_may_take_twice_its_share_of_the_time_by_default() -> None:
    assert settings(shadow__name="second", shadow__share=0.25).shadow.cost == 0.5
    assert settings(shadow__name="second", shadow__max_cost=0.05).shadow.cost == 0.05


def test_its_labels_may_have_other_names() -> None:
    shadow = settings(shadow__name="second", shadow__labels="good=POSITIVE,bad=NEGATIVE").shadow
    assert shadow.labels == {"good": "POSITIVE", "bad": "NEGATIVE"}


def test_a_pools_process_gets_the_same_shadow() -> None:
    chosen = settings(shadow__name="second", shadow__labels="good=POSITIVE")
    assert load(plain_values(chosen), environ={}).settings.shadow == chosen.shadow


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shadow__share": 0.5}, "shadow.share set, but no shadow.name"),
        ({"shadow__dtype": "int8", "shadow__max_cost": 1.0}, "shadow.dtype, shadow.max_cost set"),
        ({"shadow__name": "b", "shadow__share": 1.5}, "shadow.share"),
        ({"shadow__name": "b", "shadow__topic": "texts.labelled"}, "uses already"),
        ({"shadow__name": "b", "shadow__topic": "texts.in"}, "uses already"),
        ({"shadow__name": "b", "shadow__topic": "a/b"}, "249 letters"),
        (
            {"shadow__name": "b", "shadow__topic": "x.s", "input__topic_pattern": r"x\..*"},
            "uses already",
        ),
        (
            {"shadow__name": "b", "shadow__engine": "openvino", "shadow__dtype": "int8"},
            "shadow.dtype = 'int8' computes in torch",
        ),
        (
            {"shadow__name": "b", "shadow__max_tokens": 512, "batch__forward_tokens": 64},
            "shadow.max_tokens (512) is more than batch.forward_tokens (64)",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(**values)
    assert message in str(refused.value)
