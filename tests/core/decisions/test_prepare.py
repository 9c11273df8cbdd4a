"""A preparation: its steps in order, its name, and the calls of the own function."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import pytest

from schemas.dead_letter import DeadLetterReason
from worker import underway
from worker.core.decisions.emoji_names import emoji_names
from worker.core.decisions.own_function import LONGEST_RESULT, OwnFunction
from worker.core.decisions.prepare import Preparation, preparation
from worker.errors import Interrupted, RecordRejected
from worker.settings import PrepareSettings


def made(function: Callable[[str], Any] | None = None, **options: Any) -> Preparation:
    own = OwnFunction("pkg.mod:clean", "1.0-abc", function) if function else None
    result = preparation(PrepareSettings(**options), own)
    assert result is not None
    return result


def rejection(function: Callable[[str], Any], text: str = "text") -> RecordRejected:
    with pytest.raises(RecordRejected) as caught:
        made(function).apply(text)
    return caught.value


def test_without_options_there_is_no_preparation() -> None:
    assert preparation(PrepareSettings()) is None
    assert not PrepareSettings().is_on
    assert PrepareSettings(html=True).is_on


def test_every_step_has_its_place_and_its_name() -> None:
    whole = made(
        str.upper,
        html=True,
        unicode="NFKC",
        urls="http",
        mentions="@user",
        emoji="names",
        whitespace=True,
        special_tokens="tokens",
    )
    assert whole.apply("  @ann&nbsp;https://x.org/@b  ❤️ ") == "@USER HTTP :RED_HEART:"
    assert whole.recipe == (
        f"html+nfkc+urls=http+mentions=@user+emoji-{emoji_names().version}+whitespace+"
        "function=pkg.mod:clean@1.0-abc+special-tokens"
    )


def test_a_preset_is_a_step() -> None:
    assert made(preset="tweets").recipe == "tweets"
    assert made(preset="tweets").apply("@ann hi") == "@user hi"


def test_special_tokens_alone_change_no_text() -> None:
    only = made(special_tokens="tokens")
    assert not only.changes_texts


def test_nothing_left_is_an_empty_text() -> None:
    with pytest.raises(RecordRejected, match="empty after its preparation") as caught:
        made(urls="").apply(" https://x.org ")
    assert caught.value.reason is DeadLetterReason.EMPTY_TEXT


def test_a_function_may_skip_a_text() -> None:
    assert made(lambda _: None).apply("text") is None


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (b"bytes", "returned bytes: it must return str or None"),
        (3, "returned int"),
        (False, "bool"),
    ],
)
def test_a_result_that_is_no_text_is_rejected(result: Any, problem: str) -> None:
    error = rejection(lambda _: result)
    assert error.reason is DeadLetterReason.PREPARE_FAILED
    assert problem in str(error)
    assert "pkg.mod:clean" in str(error)


def test_a_result_of_20_mb_is_rejected() -> None:
    error = rejection(lambda _: "a" * 20_000_000)
    assert "returned 20,000,000 characters for 4, and 1,000,000 are allowed" in str(error)


def test_a_text_may_stay_as_long_as_it_is() -> None:
    text = "a" * (LONGEST_RESULT + 1)
    assert made(str.lower).apply(text) == text


def raising(kind: type[BaseException]) -> Callable[[str], NoReturn]:
    def function(text: str) -> NoReturn:
        raise kind(text)

    return function


def on_a_thread(call: Callable[[], object]) -> list[BaseException]:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return errors


@pytest.mark.parametrize(
    "kind", [ValueError, MemoryError, RecursionError, SystemExit, KeyboardInterrupt, GeneratorExit]
)
def test_whatever_a_function_raises_concerns_one_record(kind: type[BaseException]) -> None:
    (error,) = on_a_thread(lambda: made(raising(kind)).apply("secret"))
    assert isinstance(error, RecordRejected)
    assert f"raised {kind.__name__} in test_prepare.py, line " in str(error)
    assert "secret" not in str(error), "an error's message may quote the text"
    assert isinstance(error.__cause__, kind)


def test_an_error_of_a_function_in_c_has_no_place() -> None:
    assert str(rejection(int)).endswith("raised ValueError")


def test_an_interrupt_of_a_command_ends_it() -> None:
    with pytest.raises(Interrupted):
        made(raising(Interrupted)).apply("text")


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_an_own_end_of_a_function_ends_no_command(kind: type[BaseException]) -> None:
    with pytest.raises(RecordRejected, match=f"raised {kind.__name__}"):
        made(raising(kind)).apply("text")


def test_the_thread_names_the_function_while_it_runs() -> None:
    seen: list[str] = []

    def looking(text: str) -> str:
        seen.append(underway.name_of(threading.get_ident()))
        return text

    made(looking).apply("text")
    assert seen == ["prepare.function pkg.mod:clean"]
    assert underway.name_of(threading.get_ident()) == ""
    assert underway.name_of(None) == ""


def test_a_function_runs_once_at_a_time() -> None:
    """A shadow prepares texts on the infer thread; a function may keep state between texts."""
    inside, most = 0, 0

    def function(text: str) -> str:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.01)
        inside -= 1
        return text

    own = OwnFunction("pkg.mod:clean", "1.0-abc", function)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(own, "abcd")) == [*"abcd"]
    assert most == 1
