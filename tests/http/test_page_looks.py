"""The page in a real browser is legible: colours, labels, histogram, widths, contrast."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import expect

from tests.support import snapshots
from tests.support.browsers import NEEDS_CHROMIUM
from tests.support.snapshots import EMOTIONS, Told, dead_letter
from tests.support.told_sites import ToldVisit, Visiting
from worker.http.label_colours import label_colour

WIDTHS = (320, 390, 768, 1280, 1440, 1920)

pytestmark = [
    pytest.mark.timeout(240),
    NEEDS_CHROMIUM,
    # The driver keeps threads while the browser runs.
    pytest.mark.allow_threads,
]


def test_28_labels_are_legible(visiting: Visiting) -> None:
    with visiting(
        snapshots.with_labels(EMOTIONS), viewport={"width": 1440, "height": 900}
    ) as visit:
        names = visit.page.locator("#labels bdi")
        expect(names).to_have_count(28)
        assert set(names.all_inner_texts()) == set(EMOTIONS)
        cut = "all => all.filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent)"
        assert names.evaluate_all(cut) == []
        assert "16 others" in visit.page.inner_text("#legend-texts")
        inside = """([legend, card]) => {
          const [a, b] = [legend, card].map((e) => e.getBoundingClientRect());
          return a.left >= b.left && a.right <= b.right && a.top >= b.top && a.bottom <= b.bottom;
        }"""
        legend = visit.page.locator("#legend-texts").element_handle()
        card = visit.page.locator(".main-plot").element_handle()
        assert visit.page.evaluate(inside, [legend, card])
        chart = visit.page.locator("#chart-texts").bounding_box()
        assert chart
        assert chart["height"] > 150


def colours(visit: ToldVisit) -> dict[str, str]:
    """Return the colour of each label in the list."""
    script = """all => Object.fromEntries(all.map((bar) => [
      bar.querySelector("bdi").textContent,
      bar.querySelector(".track > span").style.getPropertyValue("--paint")]))"""
    shown: dict[str, str] = visit.page.locator("#labels .bar").evaluate_all(script)
    return shown


def test_a_colour_depends_on_the_label_alone(visiting: Visiting) -> None:
    with visiting(snapshots.with_labels(EMOTIONS)) as visit:
        among_all = colours(visit)
    with visiting(snapshots.with_labels(EMOTIONS[::-1][:7])) as visit:
        few = colours(visit)
    assert len(few) == 7
    assert few == {name: among_all[name] for name in few}
    assert len(set(among_all.values())) > 7
    assert among_all["neutral"] == "var(--neutral)"
    assert not {"var(--good)", "var(--bad)"} & set(among_all.values())


def test_red_and_green_mean_something(visiting: Visiting) -> None:
    names = ("Positive", "negative", "LABEL_0", "toxic", "5 stars", "1 star")
    with visiting(snapshots.with_labels(names)) as visit:
        shown = colours(visit)
    assert shown["Positive"] == "var(--good)"
    assert shown["negative"] == shown["toxic"] == "var(--bad)"
    assert shown["5 stars"] == "var(--good-deep)"
    assert shown["1 star"] == "var(--bad-deep)"
    assert re.fullmatch(r"var\(--l\d\)", shown["LABEL_0"])


def test_a_bar_of_the_histogram_is_as_wide_as_its_bucket(visiting: Visiting) -> None:
    told = Told()
    told.snapshot["confidence"] = snapshots.confidence({0.5: 0.5, 0.95: 0.4, 0.99: 0.1}, 1000)
    with visiting(told) as visit:
        script = "all => all.map((bar) => [bar.style.width, bar.style.height].map(parseFloat))"
        bars = visit.page.locator("#confidence .columns > span").evaluate_all(script)
        assert [round(width) for width, _ in bars] == [20, 8, 2]
        areas = [width * height for width, height in bars]
        assert [round(area / sum(areas), 3) for area in areas] == [0.5, 0.4, 0.1]
        visit.shows("#confidence-note", "50.0 % of the labels have a probability above 0.95")


def test_no_share_is_above_100_percent(visiting: Visiting) -> None:
    told = Told()
    for stage in told.snapshot["stages"]:
        stage["busy"] = 1.71
    told.snapshot["batches"]["tokens"] = 5000
    with visiting(told) as visit:
        visit.shows("#stages", "100 %")
        shown = re.findall(r"([\d.,]+) %", visit.page.inner_text("main"))
        assert len(shown) > 20
        assert max(float(share.replace(",", "")) for share in shown) <= 100
        shares = visit.page.locator("#stages tr td:nth-child(2)").all_inner_texts()
        assert sum(
            float(share[:-2]) for share in shares if share != "\N{EN DASH}"
        ) == pytest.approx(100)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_never_scrolls_sideways(visiting: Visiting, width: int) -> None:
    told = snapshots.with_labels([*EMOTIONS[:20], "w" * 200, "a label of many words " * 9])
    told.snapshot["identity"] |= {"host": "h" * 120, "group": "g" * 200}
    told.snapshot["dead_letters"]["latest"] = [dead_letter(1, message="m" * 400, topic="t" * 249)]
    with visiting(told, viewport={"width": width, "height": 800}) as visit:
        visit.page.locator(".letter summary").click()
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
        used = visit.page.evaluate("document.querySelector('main').clientWidth")
        assert used >= width - 64, "the page leaves no room unused"


def test_the_figures_the_charts_and_the_panels_begin_above_the_fold(visiting: Visiting) -> None:
    with visiting(Told(), viewport={"width": 1440, "height": 900}) as visit:
        for part in (".figures", "#chart-texts", "#chart-lag", "#labels", "#posts", "#partitions"):
            box = visit.page.locator(part).bounding_box()
            assert box, part
            assert box["y"] < 800, part
        assert visit.page.locator("#h-dead").bounding_box()["y"] < 900


# WCAG 2.2, 1.4.3: https://www.w3.org/TR/WCAG22/#contrast-minimum
UNREADABLE = """() => {
  const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
  const brush = canvas.getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => {
    brush.clearRect(0, 0, 1, 1);
    brush.fillStyle = colour;
    brush.fillRect(0, 0, 1, 1);
    return [...brush.getImageData(0, 0, 1, 1).data];
  };
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => [r, g, b].map((v) => linear(v / 255))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const shown = rgb(getComputedStyle(e).backgroundColor);
      if (shown[3] === 255) return shown;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const found = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    const [a, b] = [rgb(getComputedStyle(element).color), ground(element)].map(light);
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found.push(`${walker.currentNode.textContent}: ${contrast.toFixed(2)}`);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(visiting: Visiting, scheme: str) -> None:
    told = snapshots.of_a_pool(dead=2)
    with visiting(told, color_scheme=scheme) as visit:
        visit.page.locator(".letter summary").first.click()
        assert visit.page.evaluate(UNREADABLE) == []
        visit.page.evaluate("document.getElementById('model').style.color = '#777777'")
        assert len(visit.page.evaluate(UNREADABLE)) == 1, "the check can fail"


def test_nothing_moves_for_those_who_ask_for_that(visiting: Visiting) -> None:
    moves = "getComputedStyle(document.querySelector('.track > span')).transitionDuration"
    with visiting(Told()) as visit:
        assert visit.page.evaluate(moves) == "0.4s"
    with visiting(Told(), reduced_motion="reduce") as visit:
        assert visit.page.evaluate(moves) == "0s"


def test_a_label_has_its_colour_of_the_terminal(visiting: Visiting) -> None:
    names = (*EMOTIONS, "POSITIVE", "very_negative", "étiquette", "标签", "LABEL_7")
    computed = """all => Object.fromEntries(all.map((bar) => [
      bar.querySelector("bdi").textContent,
      getComputedStyle(bar.querySelector(".track > span")).backgroundColor]))"""
    with visiting(snapshots.with_labels(names), color_scheme="dark") as visit:
        shown = visit.page.locator("#labels .bar").evaluate_all(computed)
    expected = {name: bytes.fromhex(label_colour(name)[1:]) for name in names}
    assert shown == {name: f"rgb({r}, {g}, {b})" for name, (r, g, b) in expected.items()}
