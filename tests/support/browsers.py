"""The page in a real browser: the system's Chromium, with all errors of the page recorded."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.integration.test_metrics import FORMATS, scrape, total

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine's PATH")
# Figures by their names on the page and in /metrics.
FIGURES = {
    "published": "streamlabel_records_published_total",
    "dead": "streamlabel_records_dead_lettered_total",
    "lag": "streamlabel_offset_lag",
    "inflight": "streamlabel_inflight_records",
}
PATIENCE = 60_000  # ms; enough for a browser on a busy machine


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser in a `with` block."""
    with sync_playwright() as driver:
        # Root in a container has no sandbox; the browser opens only the worker's pages.
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Visit:
    """An open page of a running worker, and the errors on it."""

    def __init__(self, page: Page, port: int) -> None:
        self.page, self.port = page, port
        self.complaints: list[str] = []
        self.hosts: set[str | None] = set()
        page.on("console", lambda said: self.complaints.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.hosts.add(urlsplit(request.url).hostname))
        page.goto(f"http://127.0.0.1:{port}/")
        expect(page.locator("#state")).to_have_text("running", timeout=PATIENCE)

    def shows(self, name: str, words: str) -> None:
        """Wait until a figure has this value."""
        expect(self.page.locator(f"#{name}")).to_have_text(words, timeout=PATIENCE)

    def shows_metrics(self) -> None:
        """Wait until the figures equal those of /metrics, which no longer change."""
        found = scrape(self.port, *FORMATS[0])
        for name, counted in FIGURES.items():
            self.shows(name, f"{total(found, counted):,.0f}")
        shown = self.page.inner_text("#labels")
        labels = {has["label"]: number for has, number in found["streamlabel_labels_total"]}
        assert len(labels) == 2
        for label, number in labels.items():
            assert re.search(rf"{label}\s+{number:,.0f}\s", shown), shown

    def moves(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until the chart of texts has points and looks different than before."""
        chart = self.page.locator("#chart-texts")
        before = chart.screenshot()
        for _ in range(3):
            meanwhile()
            self.page.wait_for_timeout(1100)
        expect(chart.locator("canvas")).to_be_visible(timeout=PATIENCE)
        told = re.compile(r"(POSITIVE|NEGATIVE) [1-9]")
        expect(chart).to_have_attribute("aria-label", told, timeout=PATIENCE)
        assert chart.screenshot() != before
