"""The page in a real browser shows what a worker tells: states that are hard to bring about."""

from __future__ import annotations

import re
from contextlib import closing

import pytest
from playwright.sync_api import Browser, expect

from tests.support import snapshots
from tests.support.browsers import NEEDS_CHROMIUM, PATIENCE
from tests.support.snapshots import Told, dead_letter
from tests.support.told_sites import ToldSite, Visiting
from tests.support.workers import wait_until

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><b>bold</b>"

pytestmark = [
    pytest.mark.timeout(240),
    NEEDS_CHROMIUM,
    # The driver keeps threads while the browser runs.
    pytest.mark.allow_threads,
]


def test_the_first_line_tells_which_worker_this_is(visiting: Visiting) -> None:
    told = snapshots.of_a_pool()
    told.snapshot["worker"]["model"]["revision"] = "3216a57f2a0d9c45a2e6c20157c20c49fb4bf9c7"
    with visiting(told) as visit:
        visit.shows("#topics", "texts.in→texts.labelled")
        shown = visit.page.inner_text("#identity")
        for term, words in {
            "Group": "sentiment",
            "Broker": "broker-1.example:9092, 2 more",
            "Host": "labeller-7d4f9",
            "Up": "3 h 14 min",
            "Delivery": "at least once",
            "Workers": "4",
        }.items():
            assert re.search(rf"{term}\s+{words}(\s|$)", shown), (term, shown)
        visit.shows("#model", "bundled · revision 3216a57f2a0d · packed engine · bfloat16 · cpu")
        assert visit.page.title() == "texts.in \N{EN DASH} streamlabel"
        links = visit.page.locator("#links a").evaluate_all("all => all.map(a => a.href)")
        assert links == ["https://docs.example/", "https://board.example/d/1"]


def test_a_pattern_stands_for_the_topics_it_matches(visiting: Visiting) -> None:
    told = Told()
    told.snapshot["identity"] |= {"inputs": [], "pattern": r"texts\..*"}
    with visiting(told) as visit:
        visit.shows("#topics", r"topics like texts\..*→texts.labelled")


def test_a_link_that_is_no_web_address_is_left_out(visiting: Visiting) -> None:
    told = Told()
    told.snapshot["links"] = {"docs": None, "board": "javascript:document.title='taken'"}
    with visiting(told) as visit:
        expect(visit.page.locator("#links a")).to_have_count(0)


def test_arrivals_stand_beside_labels_with_the_time_until_the_lag_is_zero(
    visiting: Visiting,
) -> None:
    with visiting(Told()) as visit:
        visit.shows("#arriving", "972")
        visit.shows("#rate", "900")
        visit.shows("#until", "2 min")
        visit.site.told.snapshot["lag"] |= {"until_zero_s": None, "trend": "growing"}
        visit.shows("#until-note", "the lag grows")
        alarmed = re.compile(r"\balert\b")
        expect(visit.page.locator("#until-note")).not_to_have_class(alarmed)
        visit.site.told.snapshot["lag"]["records"] = 90_000
        expect(visit.page.locator("#until-note")).to_have_class(alarmed, timeout=PATIENCE)
        visit.site.told.snapshot["lag"] = snapshots.lag([0, 0])
        visit.shows("#until", "caught up")


def test_the_lag_of_partitions_has_one_scale(visiting: Visiting) -> None:
    told = Told()
    told.snapshot["lag"] = snapshots.lag([831, 415, 0]) | {"left_out": 7}
    with visiting(told, reduced_motion="reduce") as visit:
        visit.shows("#lag-scale", "bars from 0 to 831 records")
        visit.shows("#partitions", "and 7 partitions with less lag")
        widths = visit.page.locator("#partitions .track > span").evaluate_all(
            "all => all.map(bar => Math.round(parseFloat(bar.style.width)))"
        )
        assert widths == [100, 50, 0]


def test_a_range_is_fetched_and_stays_in_the_address(visiting: Visiting) -> None:
    with visiting(Told()) as visit:
        assert visit.site.asked == ["5m"]
        visit.page.get_by_text("24 h", exact=True).click()
        expect(visit.page.locator("[value='24h']")).to_be_checked()
        expect(visit.page).to_have_url(re.compile("#24h$"))
        wait_until(lambda: visit.site.asked == ["5m", "24h"], what="it was fetched")
        visit.page.reload()
        expect(visit.page.locator("[value='24h']")).to_be_checked(timeout=PATIENCE)
        wait_until(lambda: visit.site.asked == ["5m", "24h", "24h"], what="it was fetched again")
        visit.page.focus("[value='24h']")
        visit.page.keyboard.press("ArrowLeft")
        expect(visit.page.locator("[value='1h']")).to_be_checked(timeout=PATIENCE)
        expect(visit.page).to_have_url(re.compile("#1h$"))


def test_a_late_reader_sees_the_run_that_ended(visiting: Visiting) -> None:
    with visiting(snapshots.of_a_run_that_ended()) as visit:
        expect(visit.page.locator("[value='1h']")).to_be_checked(timeout=PATIENCE)
        visit.shows("#story", re.compile(r"Idle for 30 min: .* 412,345 texts labelled and 9 dead"))
        visit.shows("#story", "in 8 min of work, 900 texts/s on average, 1,144 at most, p99 97 ms")
        visit.shows("#latency-age", "30 min ago")
        visit.shows("#age", "last record 30 min ago")
        assert "\N{EN DASH}" not in visit.page.inner_text(".figures")
        visit.shows("#legend-latency", re.compile(r"p99\s*\d+ ms"))
        expect(visit.page.locator("#chart-texts canvas")).to_be_visible()


def test_a_worker_without_records_tells_what_it_waits_for(visiting: Visiting) -> None:
    with visiting(snapshots.of_no_record()) as visit:
        visit.shows("#story", "Waiting for the first record of texts.in: 6 partitions assigned")
        expect(visit.page.locator("#posts")).to_be_hidden()
        expect(visit.page.locator("#partitions")).to_be_visible()
        visit.site.told.snapshot["lag"]["partitions"] = []
        visit.shows("#story", "No partition is assigned yet")
        visit.site.told = Told()
        expect(visit.page.locator("#posts")).to_be_visible(timeout=PATIENCE)
        expect(visit.page.locator("#story")).to_be_hidden()


def test_a_dead_worker_of_a_pool_is_told(visiting: Visiting) -> None:
    with visiting(snapshots.of_a_pool(dead=2)) as visit:
        visit.shows("#state", "3 of 4 running")
        visit.shows("#notice", "worker 2: ended with exit code 137, starts in 4 s")
        visit.shows("#identity", re.compile(r"Workers\s*3 of 4"))
        moods = visit.page.locator("#workers li").evaluate_all(
            "all => all.map(w => w.dataset.mood)"
        )
        assert moods == ["good", "good", "bad", "good"]
        assert visit.page.title().startswith("3 of 4 running")


def test_labels_beyond_the_hundredth_are_counted(visiting: Visiting) -> None:
    told = Told()
    told.snapshot["others"] = {"labels": 12, "total": 3}
    with visiting(told) as visit:
        visit.shows("#labels", re.compile(r"12 others\s*3"))


def test_a_dead_letter_opens_and_stays_open(visiting: Visiting) -> None:
    told = Told()
    told.snapshot["dead_letters"]["latest"] = [dead_letter(1, text="naïve {text"), dead_letter(2)]
    with visiting(told) as visit:
        visit.shows("#dead-rate", "9 records since the start, 0.20 a second now")
        first = visit.page.locator(".letter").first
        first.locator("summary").focus()
        visit.page.keyboard.press("Enter")
        opened = first.inner_text()
        for words in ("Expecting value", "partition 1, offset 48,228", "9f2c41d1", "naïve {text"):
            assert words in opened
        other = [dead_letter(3), *visit.site.told.snapshot["dead_letters"]["latest"]]
        visit.site.told.snapshot["dead_letters"]["latest"] = other
        expect(visit.page.locator(".letter")).to_have_count(3, timeout=PATIENCE)
        expect(visit.page.locator(".letter[open]")).to_have_count(1)
        assert "naïve" in visit.page.locator(".letter[open]").inner_text()
        last = visit.page.locator(".letter").last
        last.locator("summary").click()
        assert "54 bytes, hidden: http.show_texts is off" in last.inner_text()


@pytest.mark.parametrize("clipboard", [True, False], ids=["clipboard", "selection"])
def test_the_command_that_replays_is_copied(visiting: Visiting, *, clipboard: bool) -> None:
    told = Told()
    with visiting(told, permissions=["clipboard-read", "clipboard-write"]) as visit:
        visit.shows("#needs", "STREAMLABEL_KAFKA_SASL_PASSWORD")
        read = "navigator.clipboard.readText()"
        visit.page.evaluate("navigator.clipboard.writeText('before')")
        if not clipboard:  # as on a page that is neither encrypted nor of this machine
            visit.page.evaluate(
                "window.kept = navigator.clipboard;"
                "Object.defineProperty(navigator, 'clipboard', {value: undefined})"
            )
            read = "window.kept.readText()"
        visit.page.click("#copy")
        visit.shows("#copied", "Copied")
        assert visit.page.evaluate(read) == told.snapshot["dead_letters"]["command"]


def test_settings_are_filtered(visiting: Visiting) -> None:
    with visiting(Told()) as visit:
        rows = visit.page.locator("#settings tbody tr")
        expect(rows).to_have_count(64)
        visit.page.check("#changed")
        expect(rows).to_have_count(4)
        visit.shows("#settings-count", "4 of 64")
        visit.page.fill("#filter", "SASL environment")
        expect(rows).to_have_count(1)
        assert "(hidden)" in rows.inner_text()
        visit.page.uncheck("#changed")
        visit.page.fill("#filter", "option_59")
        expect(rows).to_have_count(1)


def test_models_and_the_shadow_are_shown(visiting: Visiting) -> None:
    with visiting(Told()) as visit:
        names = visit.page.locator("#models .strong").all_inner_texts()
        assert names == ["bundled", "cardiffnlp/twitter-roberta"]
        visit.page.locator("#models summary").first.click()
        assert re.search(r"texts.in/5\s+4,155", visit.page.inner_text("#models"))
        visit.shows("#agreement", "99.3 %")
        visit.shows("#flips", re.compile(r"POSITIVE → NEGATIVE\s*212\s*0.5 %"))
        visit.shows("#interval", "95 % interval 99.1 % to 99.4 %")
        visit.site.told.snapshot["shadow"] |= {"state": "failed", "texts": 0, "flips": []}
        visit.shows("#agreement-note", "it failed: the log has the reason")
        visit.site.told.snapshot["shadow"] = None
        expect(visit.page.locator("#shadow-panel")).to_be_hidden(timeout=PATIENCE)


def test_a_worker_that_is_gone_is_told(visiting: Visiting, browser: Browser) -> None:
    with closing(ToldSite(Told())) as site:
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{site.port}/")
        expect(page.locator("#rate")).to_have_text("900", timeout=PATIENCE)
    expect(page.locator("#state")).to_have_text("unreachable", timeout=PATIENCE)
    expect(page.locator("#notice")).to_contain_text("has not answered for")
    expect(page.locator("#rate")).to_have_text("900")
    page.close()


def test_names_from_outside_are_shown_as_text(visiting: Visiting) -> None:
    told = snapshots.with_labels([HOSTILE, "other"])
    told.snapshot["identity"] |= {"inputs": [HOSTILE], "group": HOSTILE}
    told.snapshot["dead_letters"]["latest"] = [dead_letter(1, message=HOSTILE, text=HOSTILE)]
    told.snapshot["dead_letters"]["command"] = HOSTILE
    told.snapshot["settings"] = [{"name": HOSTILE, "value": [HOSTILE], "origin": HOSTILE}]
    told.snapshot["models"][0]["name"] = HOSTILE
    told.snapshot["shadow"] |= {
        "model": HOSTILE,
        "flips": [{"from": HOSTILE, "to": "", "number": 1}],
    }
    with visiting(told) as visit:
        visit.shows("#topics", "<img")
        visit.shows("#legend-texts", "<img")
        visit.shows("#settings", "<img")
        assert visit.page.locator("body img, main b b").count() == 0
        assert "taken" not in visit.page.title().replace(HOSTILE, "")


def test_several_models_have_a_panel_of_their_own(visiting: Visiting) -> None:
    """With one model it is hidden, as is that of the routes."""
    told = Told()
    with visiting(told) as visit:
        for panel in ("#each-model-panel", "#routes-panel"):
            expect(visit.page.locator(panel)).to_be_hidden()
        visit.site.told = snapshots.of_several_models()
        visit.shows("#each-model .model:nth-child(2)", "41 % of the models' time")
        mix = re.compile(r"POSITIVE\s*66.7 %\s*NEGATIVE\s*33.3 %")
        visit.shows("#each-model .model:nth-child(1)", mix)
        visit.shows("#each-model .model:nth-child(3)", "314,134 without: not applicable")
        visit.shows("#routes", "angry")
        visit.shows("#copies", "toxic-copy")
        visit.shows("#filtered", "route spam")
        visit.shows("#filtered", re.compile(r"41\s*<0\.1 %"))  # of 412,000 records
        visit.shows("#routes-note", "2 copies lost: each is a dead letter")
        expect(visit.page.locator("#routes-note")).to_have_class(re.compile(r"\balert\b"))


def test_a_share_of_no_results_is_not_shown(visiting: Visiting) -> None:
    told = snapshots.of_several_models()
    told.snapshot["routes"] = snapshots.no_route_taken()
    with visiting(told) as visit:
        visit.shows("#routes", re.compile(r"^no result routed yet$"))
        for head in ("#copies-head", "#filtered-head"):
            expect(visit.page.locator(head)).to_be_hidden()
        for bars in ("#copies", "#filtered"):
            expect(visit.page.locator(bars)).to_be_empty()


def test_the_labels_that_are_counted_are_of_a_model_that_is_named(visiting: Visiting) -> None:
    told = Told()
    with visiting(told) as visit:
        visit.shows("#h-labels", re.compile(r"^Labels\s+since the start$"))
        visit.site.told = snapshots.of_several_models()
        visit.shows("#h-labels", re.compile(r"^Labels of sentiment\s+since the start$"))
        visit.shows("#h-texts", "Texts per second, by label of sentiment")


def test_labels_of_a_model_with_one_colour_differ_in_their_texture(visiting: Visiting) -> None:
    """Insult, obscene and toxic have one meaning, and so one colour."""
    with visiting(snapshots.of_several_models()) as visit:
        swatches = visit.page.locator("#each-model .model:nth-child(3) .legend li")
        expect(swatches).to_have_count(5, timeout=PATIENCE)
        textures = swatches.evaluate_all(
            "all => all.map(one => [one.children[1].textContent, one.children[0].dataset.texture])"
        )
        assert dict(textures)["insult"] == "0"
        assert dict(textures)["obscene"] == "1"
        assert dict(textures)["toxic"] == "2"


def test_a_phone_shows_the_whole_label_of_each_model(visiting: Visiting) -> None:
    with visiting(snapshots.of_several_models(), viewport={"width": 390, "height": 844}) as visit:
        visit.shows("#posts li:nth-child(1)", "not applicable")
        cut = visit.page.locator("#posts .by-model bdi").evaluate_all(
            "all => all.filter(one => one.scrollWidth > one.clientWidth).length"
        )
        assert cut == 0


def test_a_post_has_a_line_for_each_model(visiting: Visiting) -> None:
    with visiting(snapshots.of_several_models()) as visit:
        visit.shows("#posts li:nth-child(1)", re.compile(r"language\s*en\s*99.0 %"))
        visit.shows("#posts li:nth-child(1)", "not applicable")
        visit.shows("#posts li:nth-child(3)", "filtered: route spam")
        wide = visit.page.locator("#posts").evaluate("list => list.scrollWidth > list.clientWidth")
        assert not wide


def test_a_post_has_what_was_decided_for_each_model(visiting: Visiting) -> None:
    with visiting(snapshots.of_several_models()) as visit:
        uncertain = re.compile(r"POSITIVE\s*53.0 %\s*UNCERTAIN\s*language")
        visit.shows("#posts li:nth-child(6)", uncertain)
        visit.shows("#posts li:nth-child(6)", "decided: not_toxic")


def test_a_post_has_the_labels_that_were_decided(visiting: Visiting) -> None:
    told = snapshots.with_decisions()
    told.snapshot["posts"][1].update(label="UNCERTAIN")
    del told.snapshot["posts"][1]["decided"]
    with visiting(told) as visit:
        visit.shows("#posts li:nth-child(1)", "decided: none")
        visit.shows("#posts li:nth-child(2)", "UNCERTAIN")
        visit.shows("#posts li:nth-child(3)", "decided: ")
