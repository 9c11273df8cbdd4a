"""The options of several models, and the plans that they make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worker.errors import SettingsError
from worker.settings import ModelPlan, load, plans


def test_one_model_has_a_plan_without_a_name() -> None:
    settings = load({"model.name": "bundled"}, environ={}).settings
    assert plans(settings) == (ModelPlan(None, settings),)


def test_each_model_has_its_options_and_shares_threads_and_directories(tmp_path: Path) -> None:
    file = tmp_path / "streamlabel.toml"
    file.write_text(
        """
        [model]
        threads = 3
        [input]
        stride = 10
        [prepare]
        html = true
        [models.language]
        name = "a/language"
        [models.tone]
        name = "bundled"
        max_tokens = 64
        required = false
        overflow = "windows"
        decision = {top_k = 1}
        prepare = {html = false}
        when = {model = "language", label = "en", path = "kind", in = ["post"]}
        """
    )
    language, tone = plans(load({}, file, {}).settings)
    assert (language.name, language.options.name, language.required) == (
        "language",
        "a/language",
        True,
    )
    assert (tone.options.max_tokens, tone.options.threads, tone.required) == (64, 3, False)
    assert (language.windows.overflow, language.windows.stride) == ("truncate", 10)
    assert (tone.windows.overflow, tone.windows.stride) == ("windows", 10)
    assert (language.decision.top_k, tone.decision.top_k) == (None, 1)
    assert (language.prepare.html, tone.prepare.html) == (True, False)
    assert tone.settings.models == {}
    assert tone.when is not None
    assert (tone.when.model, tone.when.label, tone.when.in_) == ("language", ("en",), ("post",))


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ('{Tone = {name = "x"}}', "'Tone' is no name of a model"),
        ('{"" = {name = "x"}}', "'' is no name of a model"),
        ("{tone = {}}", "models.tone.name: is missing"),
        ('{tone = {name = ""}}', "models.tone.name = '': must not be empty"),
        ('{tone = {name = "x", wen = 1}}', "did you mean when?"),
        (
            '{tone = {name = "x", when = {model = "language", label = "en"}}}',
            "models.tone.when names the model 'language', and the models are tone",
        ),
        (
            """{a = {name = "x", when = {model = "b", label = "l"}}, b = {name = "x",
            when = {model = "a", label = "l"}}}""",
            "the models wait for each other's labels: a -> b -> a",
        ),
        (
            '{a = {name = "x", when = {model = "a", label = "l"}}}',
            "the models wait for each other's labels: a -> a",
        ),
        (
            '{a = {name = "x", engine = "openvino", dtype = "int8"}}',
            "models.a.dtype = 'int8' computes in torch",
        ),
        (
            '{a = {name = "x", stride = 3}}',
            'models.a.stride needs models.a.overflow = "windows"',
        ),
        (
            """{a = {name = "x", overflow = "windows", combine = "first", stride = 3,
            max_windows = 2}}""",
            "models.a.stride and models.a.max_windows have no effect",
        ),
        (
            '{a = {name = "x", decision = {uncertain_label = "U"}}}',
            "models.a.decision.uncertain_label = 'U' has no effect",
        ),
        ('{a = {name = "x", when = {in = ["en"]}}}', "'in' needs 'path'"),
        (
            '{a = {name = "x", when = {path = "lang"}}}',
            "path = 'lang' needs a test: 'in', 'not_in', 'matches' or 'exists'",
        ),
        (
            '{a = {name = "x", when = {path = "lang", exists = false, in = "en"}}}',
            "'exists' = false leaves no value for the other tests",
        ),
        ('{a = {name = "x", when = {}}}', "needs a condition: 'path' or 'model'"),
        ('{a = {name = "x", when = {model = "a"}}}', "model = 'a' needs 'label'"),
        ('{a = {name = "x", when = {path = "x", in = "y", label = "l"}}}', "'label' needs 'model'"),
        (
            '{a = {name = "x", when = {model = "a", label = []}}}',
            "models.a.when.label: must not be empty",
        ),
        ("{a = 1}", "models.a"),
        ("[1]", "must be a table"),
    ],
)
def test_wrong_models_are_told_in_one_line(models: str, message: str) -> None:
    with pytest.raises(SettingsError) as error:
        load({"models": " ".join(models.split())}, environ={})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"model.name": "y"}, "model.name and models.a are set"),
        ({"model.dtype": "float32", "model.engine": "padded"}, "model.dtype and model.engine and"),
        ({"shadow.name": "y"}, "shadow.name compares with the one model of [model]"),
        ({"input.format": "text"}, "models.a.when names the field 'lang'"),
        (
            {"models": '{a = {name = "x", max_tokens = 99}}', "batch.forward_tokens": 50},
            "models.a.max_tokens (99) is more than batch.forward_tokens",
        ),
    ],
)
def test_what_contradicts_several_models_is_told(more: dict[str, Any], message: str) -> None:
    models = '{a = {name = "x", when = {path = "lang", exists = true}}}'
    with pytest.raises(SettingsError) as error:
        load({"models": models, **more}, environ={})
    assert message in str(error.value)


def test_a_table_that_every_model_replaces_is_told() -> None:
    flags = {
        "models": '{a = {name = "x", decision = {}}, b = {name = "y", decision = {top_k = 1}}}',
        "decision.digits": 3,
        "prepare.html": True,
    }
    (warning,) = load(flags, environ={}).warnings
    assert warning.startswith("[decision] has no effect, as each of [models] has its own")


def test_two_models_of_one_name_are_told(tmp_path: Path) -> None:
    file = tmp_path / "streamlabel.toml"
    file.write_text('[models.tone]\nname = "x"\n[models.tone]\nname = "y"\n')
    with pytest.raises(SettingsError, match=r"Cannot declare .*tone.* twice"):
        load({}, file, {})


_FIRST = '{name = "x", overflow = "windows", combine = "first"}'
_MEAN = '{name = "y", overflow = "windows"}'


def test_a_stride_for_all_models_is_refused_if_each_reads_one_window(tmp_path: Path) -> None:
    """A model that needs it keeps it."""
    file = tmp_path / "streamlabel.toml"
    text = "[input]\nstride = 10\n[models]\na = {}\nb = {}\n"
    file.write_text(text.format(_FIRST, _MEAN))
    assert plans(load({}, file, {}).settings)[1].windows.stride == 10
    file.write_text(text.format(_FIRST, '{name = "y"}'))
    with pytest.raises(SettingsError, match=r"input\.stride has no effect"):
        load({}, file, {})
