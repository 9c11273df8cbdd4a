"""`streamlabel demo --keep` in a real browser: from the topics to the page, until Ctrl-C."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.conftest import Broker
from tests.integration.test_demo import BROKEN, Demo
from tests.support.browsers import NEEDS_CHROMIUM, PATIENCE, Visit, chromium
from tests.support.models import make_checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400), NEEDS_CHROMIUM]

STREAM = ("--posts", "300", "--rate", "20")  # slow enough to watch


def wait_for(running: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Return the match in the next line of the demo's output that has the pattern."""
    assert running.stdout
    matches = (re.search(pattern, line) for line in running.stdout)
    match = next(filter(None, matches), None)
    assert match, f"the demo ended without {pattern!r}"
    return match


def test_the_page_shows_the_demo_and_its_end(broker: Broker, tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model", max_tokens=64)
    demo = Demo(broker, tmp_path / "own")
    running = demo.start("--keep", "--model", str(model), *STREAM)
    try:
        with chromium() as browser:
            port = int(wait_for(running, r"http://127\.0\.0\.1:(\d+)/ is its live page")[1])
            visit = Visit(browser.new_page(), port)
            visit.moves()
            texts = visit.page.locator("#posts li > div > bdi:not(.quiet)")
            expect(texts.first).not_to_be_empty(timeout=PATIENCE)

            wait_for(running, "staying up until Ctrl-C")
            visit.shows("dead", str(sum(BROKEN.values())))
            for name in ("inflight", "lag"):
                visit.shows(name, "0")
            visit.shows_metrics()

            visit.page.fill("#text", "what a lovely morning")
            visit.page.click("#ask button")
            expect(visit.page.locator("#answer")).to_contain_text(
                "ms in the model", timeout=PATIENCE
            )
            visit.shows_metrics()
            assert visit.complaints == []
            assert visit.hosts == {"127.0.0.1"}

            running.send_signal(signal.SIGINT)
            visit.shows("state", "unreachable")
        output, errors = running.communicate(timeout=60)
        assert running.returncode == 0, output + errors
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    assert demo.leftovers() == []
