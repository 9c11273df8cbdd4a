"""The page in a real browser: what people see is what /metrics says, and nothing leaves the host.

Chromium as the system has it; without one these tests are skipped, and say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect

from schemas import DeadLetterReason
from tests.support.browsers import NEEDS_CHROMIUM, PATIENCE, Visit, chromium
from tests.support.sites import Site

HOSTILE = (
    "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>",
    "<b>bold</b> & &amp; </bdi></li><iframe src='https://elsewhere.example/'></iframe>",
    "abc \u202edcba\u2066 \x1b[31mred\x07",
    "x" * 900_000,
)

pytestmark = [
    pytest.mark.timeout(240),
    NEEDS_CHROMIUM,
    # The driver keeps threads for as long as the browser runs.
    pytest.mark.allow_threads,
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


class Seen(Visit):
    """The page of a site."""

    def __init__(self, page: Page, site: Site) -> None:
        self.site = site
        super().__init__(page, site.server.port)


@pytest.fixture
def seen(browser: Browser) -> Iterator[Seen]:
    with closing(Site()) as site:
        site.box.open(site.model, site.model)
        site.metrics.state.set(2)
        site.label("a first one")
        page = browser.new_page()
        yield Seen(page, site)
        page.close()


def test_the_numbers_are_those_of_the_metrics(seen: Seen) -> None:
    site = seen.site
    site.label(*["text"] * 1233)
    site.label(*["text"] * 300, label="NEGATIVE")
    site.metrics.dead_lettered.labels(DeadLetterReason.NOT_JSON.value).inc(2)
    site.metrics.offset_lag.labels("in", "0").set(1500)
    site.metrics.offset_lag.labels("in", "1").set(77)
    site.metrics.inflight_records.set(12)
    seen.shows("published", "1,534")
    seen.shows("dead", "2")
    seen.shows("lag", "1,577")
    seen.shows("inflight", "12")
    seen.shows_metrics()
    assert re.search(r"not json\s+2 records", seen.page.inner_text("#reasons"))
    assert re.search(r"in 0\s+1,500 records", seen.page.inner_text("#partitions"))
    assert seen.complaints == []
    assert seen.hosts == {"127.0.0.1"}


def test_the_charts_move(seen: Seen) -> None:
    seen.moves(lambda: seen.site.label(*["text"] * 50))


def test_the_box_answers(seen: Seen) -> None:
    seen.page.fill("#text", "what a lovely morning")
    seen.page.keyboard.press("Enter")
    answer = seen.page.locator("#answer")
    expect(answer).to_contain_text("21 tokens", timeout=PATIENCE)
    assert re.search(r"POSITIVE\s+75.0 %\s+NEGATIVE\s+25.0 %", answer.inner_text())
    assert seen.complaints == []
    seen.page.fill("#text", "x" * 5001)
    seen.page.click("#box button")
    expect(answer).to_contain_text("too long: 5001 characters, at most 5000", timeout=PATIENCE)


def test_a_reader_who_has_the_token_sees_all_but_what_is_off(browser: Browser) -> None:
    """The browser sends the password with every part of the page."""
    token = "a-token-of-32-letters-0123456789"
    with closing(Site(token=token, classify=False)) as site:
        site.metrics.state.set(2)
        page = browser.new_page(http_credentials={"username": "", "password": token})
        seen = Seen(page, site)
        site.label("a first one")
        seen.shows("published", "1")
        expect(page.locator("#box")).to_be_hidden(timeout=PATIENCE)
        page.close()
    assert [words for words in seen.complaints if "401" not in words] == []


def test_hostile_texts_are_shown_as_text(seen: Seen) -> None:
    seen.page.wait_for_timeout(1100)  # another second, another few posts
    seen.site.label(*HOSTILE)
    posts = seen.page.locator("#posts li")
    expect(posts).to_have_count(len(HOSTILE) + 1, timeout=PATIENCE)
    told = "\n".join(posts.all_inner_texts())
    assert HOSTILE[0] in told
    assert "</bdi></li><iframe" in told
    assert "abc [U+202E]dcba[U+2066] [U+001B][31mred[U+0007]" in told
    assert "the first 280 of 900,000 characters" in told
    assert seen.page.locator("#posts :is(img, script, iframe, b)").count() == 0
    assert seen.page.title() == "streamlabel"
    assert seen.complaints == []
    assert seen.hosts == {"127.0.0.1"}


def test_a_dead_worker_shows_as_dead(seen: Seen) -> None:
    seen.site.server.close()
    seen.shows("state", "worker gone")
    expect(seen.page.locator("#notice")).to_contain_text("has not answered for")
    assert seen.page.title().startswith("worker gone")
    assert seen.page.evaluate("getComputedStyle(document.querySelector('main')).opacity") < "1"


def test_a_worker_that_stands_still_shows_why(seen: Seen) -> None:
    seen.site.health.verdict = (False, "infer holds 5 for 11 s")
    seen.shows("state", "stalled")
    seen.shows("notice", "infer holds 5 for 11 s")


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_cut_off_at_any_width(seen: Seen, width: int) -> None:
    seen.site.label("w" * 300)
    seen.page.set_viewport_size({"width": width, "height": 800})
    seen.shows("published", "2")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


def test_all_can_be_reached_by_keyboard_and_has_a_name(seen: Seen) -> None:
    reached = []
    for _ in range(6):
        seen.page.keyboard.press("Tab")
        reached.append(seen.page.evaluate("document.activeElement.innerText || 'text'"))
    assert reached == ["Pause", "text", "Classify", "/metrics", "/livez", "/readyz"]
    for chart in seen.page.locator("[role=img]").all():
        assert chart.get_attribute("aria-label") or chart.get_attribute("aria-labelledby")
    seen.page.focus("#pause")
    seen.page.keyboard.press("Enter")
    expect(seen.page.locator("#pause")).to_have_attribute("aria-pressed", "true")
