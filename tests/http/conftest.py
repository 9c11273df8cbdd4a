"""A browser, and visits to pages of told workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.support.browsers import chromium
from tests.support.snapshots import Told
from tests.support.told_sites import ToldSite, ToldVisit, Visiting


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def visiting(browser: Browser) -> Visiting:
    """Open the page of a told worker; options are those of a browser's page."""

    @contextmanager
    def visit(told: Told, **options: Any) -> Iterator[ToldVisit]:
        with closing(ToldSite(told)) as site:
            page = browser.new_page(**options)
            opened = ToldVisit(site, page)
            opened.open()
            yield opened
            page.close()
        assert opened.complaints == []

    return visit
