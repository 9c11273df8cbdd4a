"""Takes pictures of the live page and of `streamlabel top`.

They show a worker that runs, or states that are hard to bring about.

    python -m tests.screenshots FOLDER                     states of tests/support/snapshots.py
    python -m tests.screenshots FOLDER http://HOST:PORT/   a worker that runs

Needs a Chromium, and a font with emoji (Debian: fonts-noto-color-emoji).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from playwright.sync_api import Browser, expect
from rich.console import Console

from tests.support import snapshots
from tests.support.browsers import PATIENCE, chromium
from tests.support.told_sites import ToldSite
from worker.http import client
from worker.http.terminal import screen

_COLUMNS = 124  # of the terminal

SIZES = {
    "laptop": (1440, 900),
    "desktop": (1920, 1080),
    "phone": (390, 844),
    "tall-phone": (390, 1560),
}
STATES: dict[str, Callable[[], snapshots.Told]] = {
    "busy": snapshots.Told,
    "28-labels": lambda: snapshots.with_labels(snapshots.EMOTIONS),
    "pool": snapshots.of_a_pool,
    "dead-worker": lambda: snapshots.of_a_pool(dead=2),
    "dead-worker-28-labels": lambda: snapshots.of_a_pool(dead=2, names=snapshots.EMOTIONS),
    "several-models": snapshots.of_several_models,
    "decisions": snapshots.with_decisions,
    "empty": snapshots.of_no_record,
    "after": snapshots.of_a_run_that_ended,
}


def take(browser: Browser, url: str, name: str, folder: Path, size: str, scheme: str) -> None:
    """Save the window as NAME-SIZE-SCHEME.png, and the whole page as NAME-SIZE-SCHEME-whole.png."""
    width, height = SIZES[size]
    page = browser.new_page(
        viewport={"width": width, "height": height},
        color_scheme=scheme,  # type: ignore[arg-type]
        reduced_motion="reduce",
    )
    page.goto(url)
    expect(page.locator("#rate")).not_to_have_text("\N{EN DASH}", timeout=PATIENCE)
    expect(page.locator("#legend-latency li")).to_have_count(3, timeout=PATIENCE)
    page.wait_for_timeout(600)
    stem = folder / f"{name}-{size}-{scheme}"
    page.screenshot(path=f"{stem}.png")
    page.screenshot(path=f"{stem}-whole.png", full_page=True)
    page.close()


def take_terminal(browser: Browser, url: str, name: str, folder: Path) -> None:
    """Save what `streamlabel top` draws as NAME-top.png."""
    console = Console(file=io.StringIO(), record=True, width=_COLUMNS, highlight=False)
    stream = client.snapshots(url, "")
    console.print(screen(next(stream), _COLUMNS, ""))
    stream.close()
    page = browser.new_page(viewport={"width": 1280, "height": 1280})
    page.set_content(console.export_svg(title="streamlabel top"))
    page.locator("svg").first.screenshot(path=folder / f"{name}-top.png", omit_background=True)
    page.close()


def main() -> None:
    """Take every picture, or those of a state that is named."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("url", nargs="?", help="the page of a worker that runs")
    parser.add_argument("--states", nargs="*", choices=STATES, default=list(STATES))
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=list(SIZES))
    parser.add_argument(
        "--schemes", nargs="*", choices=("light", "dark"), default=("light", "dark")
    )
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    views = [(size, scheme) for size in args.sizes for scheme in args.schemes]
    with chromium() as browser:
        if args.url:
            for view in views:
                take(browser, args.url, "page", args.folder, *view)
            take_terminal(browser, args.url, "page", args.folder)
            return
        for name in args.states:
            with closing(ToldSite(STATES[name]())) as site:
                url = f"http://127.0.0.1:{site.port}/"
                for view in views:
                    take(browser, url, name, args.folder, *view)
                take_terminal(browser, url, name, args.folder)


if __name__ == "__main__":
    main()
