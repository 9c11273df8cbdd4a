"""The page in a real browser shows the figures of /metrics and loads nothing from other hosts.

Uses the Chromium on PATH; these tests are skipped without one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import pytest
from playwright.sync_api import Browser, Page, expect

from schemas import DeadLetterReason
from tests.support.browsers import NEEDS_CHROMIUM, PATIENCE, Visit
from tests.support.sites import Site

HOSTILE = (
    "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>",
    "<b>bold</b> & &amp; </bdi></li><iframe src='https://elsewhere.example/'></iframe>",
    "abc \u202edcba\u2066 \x1b[31mred\x07",
    "x" * 900_000,
)

# The name of the element that has the focus.
FOCUSED = """() => {
  const { activeElement: e } = document;
  const by = e.getAttribute("aria-labelledby");
  const shown = by ? document.getElementById(by).firstChild : (e.labels?.[0] ?? e);
  return shown.textContent.trim();
}"""

pytestmark = [
    pytest.mark.timeout(240),
    NEEDS_CHROMIUM,
    # The driver keeps threads while the browser runs.
    pytest.mark.allow_threads,
]


class SiteVisit(Visit):
    """An open page of a site."""

    def __init__(self, page: Page, site: Site) -> None:
        self.site = site
        super().__init__(page, site.server.port)


@pytest.fixture
def visit(browser: Browser) -> Iterator[SiteVisit]:
    with closing(Site()) as site:
        site.load_model()
        site.metrics.state.set(2)
        site.label("a first one")
        page = browser.new_page()
        yield SiteVisit(page, site)
        page.close()


def test_the_figures_are_those_of_the_metrics(visit: SiteVisit) -> None:
    site = visit.site
    site.label(*["text"] * 1233)
    site.label(*["text"] * 300, label="NEGATIVE")
    site.metrics.dead_lettered.labels(DeadLetterReason.NOT_JSON.value).inc(2)
    site.metrics.offset_lag.labels("in", "0").set(1500)
    site.metrics.offset_lag.labels("in", "1").set(77)
    site.metrics.inflight_records.set(12)
    visit.shows("published", "1,534")
    visit.shows("dead", "2")
    visit.shows("lag", "1,577")
    visit.shows("inflight", "12")
    visit.shows_metrics()
    assert re.search(r"not json\s+2 records", visit.page.inner_text("#reasons"))
    assert re.search(r"in 0\s+1,500 records", visit.page.inner_text("#partitions"))
    assert visit.complaints == []
    assert visit.hosts == {"127.0.0.1"}


def test_the_charts_move(visit: SiteVisit) -> None:
    visit.moves(lambda: visit.site.label(*["text"] * 50))


def test_a_typed_text_is_classified(visit: SiteVisit) -> None:
    visit.page.fill("#text", "what a lovely morning")
    visit.page.keyboard.press("Enter")
    answer = visit.page.locator("#answer")
    expect(answer).to_contain_text("21 tokens", timeout=PATIENCE)
    assert re.search(r"POSITIVE\s+75.0 %\s+NEGATIVE\s+25.0 %", answer.inner_text())
    assert visit.complaints == []
    visit.page.fill("#text", "x" * 5001)
    visit.page.click("#ask button")
    expect(answer).to_contain_text("text too long: 5001 characters, at most 5000", timeout=PATIENCE)


def test_a_reader_with_the_token_sees_the_parts_that_are_on(browser: Browser) -> None:
    """The browser sends the password with every part of the page."""
    token = "a-token-of-32-letters-0123456789"
    with closing(Site(token=token, classify=False)) as site:
        site.metrics.state.set(2)
        page = browser.new_page(http_credentials={"username": "", "password": token})
        visit = SiteVisit(page, site)
        site.label("a first one")
        visit.shows("published", "1")
        expect(page.locator("#ask")).to_be_hidden(timeout=PATIENCE)
        page.close()
    assert [complaint for complaint in visit.complaints if "401" not in complaint] == []


def test_hostile_texts_are_shown_as_text(visit: SiteVisit) -> None:
    visit.page.wait_for_timeout(1100)  # the sample takes only a few posts a second
    visit.site.label(*HOSTILE)
    posts = visit.page.locator("#posts li")
    expect(posts).to_have_count(len(HOSTILE) + 1, timeout=PATIENCE)
    shown = "\n".join(posts.all_inner_texts())
    assert HOSTILE[0] in shown
    assert "</bdi></li><iframe" in shown
    assert "abc [U+202E]dcba[U+2066] [U+001B][31mred[U+0007]" in shown
    assert "the first 280 of 900,000 characters" in shown
    assert visit.page.locator("#posts :is(img, script, iframe, b)").count() == 0
    assert "taken" not in visit.page.title()
    assert visit.complaints == []
    assert visit.hosts == {"127.0.0.1"}


def test_a_dead_worker_is_shown_as_unreachable(visit: SiteVisit) -> None:
    visit.site.server.close()
    visit.shows("state", "unreachable")
    expect(visit.page.locator("#notice")).to_contain_text("has not answered for")
    assert visit.page.title().startswith("unreachable")
    assert visit.page.evaluate("getComputedStyle(document.querySelector('main')).opacity") < "1"


def test_a_stalled_worker_shows_the_reason(visit: SiteVisit) -> None:
    visit.site.health.verdict = (False, "infer holds 5 for 11 s")
    visit.shows("state", "stalled")
    visit.shows("notice", "infer holds 5 for 11 s")


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(visit: SiteVisit, width: int) -> None:
    visit.site.label("w" * 300)
    visit.page.set_viewport_size({"width": width, "height": 800})
    visit.shows("published", "2")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


def test_every_control_is_reachable_by_keyboard_and_has_a_name(visit: SiteVisit) -> None:
    reached = []
    while not reached or reached[-1] != "/readyz":
        visit.page.keyboard.press("Tab")
        reached.append(visit.page.evaluate(FOCUSED))
    expected = ["Pause", "Documentation", "Text to classify", "Classify", "Lag by partition"]
    expected += ["Filter the settings", "Changed only", "Settings in force"]
    expected += ["/metrics", "/livez", "/readyz"]
    assert [name for name in reached if name != "5 min"] == expected
    for chart in visit.page.locator("[role=img]").all():
        assert chart.get_attribute("aria-label") or chart.get_attribute("aria-labelledby")
    visit.page.focus("#pause")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator("#pause")).to_have_attribute("aria-pressed", "true")
