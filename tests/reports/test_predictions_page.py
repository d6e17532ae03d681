"""The page of predictions: what is in it, that no text of it is run, and what can be done on it in a real browser."""

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from reports.predictions_page import SCRIPTS, STYLES, page_of, write_page
from run_store import UserError
from run_store.predictions import Prediction, PredictionStore, RunEntry

HOSTILE = "<script>window.hacked = 1</script></script><img src=x onerror='window.hacked = 1'>\u2028&amp;${1}"


def entry(run: str, name: str = "embedder") -> RunEntry:
    return RunEntry(run, name, f"{name}/spec-{run}/v1", None, None, "2026-03-14T09:26:53.589793+00:00")


def retrieved(run: str, epoch: int, sample: int, texts: str, truth: str = "c", prompt: str = "") -> Prediction:
    """One whose retrieved texts are the words of `texts`."""
    rank = texts.split().index(truth) + 1
    items = [
        {"text": text, "score": 0.9 - 0.1 * at, "relevant": text == truth} for at, text in enumerate(texts.split())
    ]
    prediction = {"kind": "retrieval", "rank": rank, "of": 9, "margin": 0.25, "retrieved": items}
    prompt = prompt or f"prompt {sample}"
    return Prediction(run, "", epoch, 10 * epoch, sample, prompt, truth, prediction, {"rank": rank, "margin": 0.25})


def fired(run: str, member: str, epoch: int, latents: dict[str, list[list[float]]], spliced: str = "") -> Prediction:
    """One whose prompt is its tokens."""
    tokens = [{"text": text, "error": 0.1 * at, "latents": of_it} for at, (text, of_it) in enumerate(latents.items())]
    prediction: dict[str, Any] = {"kind": "latents", "tokens": tokens}
    if spliced:
        prediction["continuation"] = {"original": "return one thing", "spliced": spliced}
    return Prediction(run, member, epoch, 5 * epoch, 0, "".join(latents), None, prediction, {"fvu": 0.5 / (1 + epoch)})


ENTRIES = [entry("r2", "sweep"), entry("r1"), entry("r0", "just-started")]
PREDICTIONS = [
    retrieved("r1", 0, 0, "a b c"),
    retrieved("r1", 0, 1, "a b c", prompt="needle in a haystack"),
    retrieved("r1", 1, 0, "a c b"),
    retrieved("r1", 1, 1, "a b c", prompt="needle in a haystack"),
    retrieved("r1", 2, 0, "c d a"),
    retrieved("r1", 2, 1, "a b c", prompt="needle in a haystack"),
    fired("r2", "k32", 0, {"def": [[7, 4.0]], " f": [[9, 1.0]]}, "return another thing"),
    fired("r2", "k32", 1, {"def": [[7, 8.0]], " f": [[5, 2.0], [7, 4.0]]}, "return one thing"),
    fired("r2", "k64", 0, {"def": [], " f": []}),
]


class Elements(HTMLParser):
    """What a parser of HTML makes of a page: its elements with attributes, and the text in each."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.is_inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.texts.append("")
        self.is_inside = True

    def handle_endtag(self, tag: str) -> None:
        self.is_inside = False

    def handle_data(self, data: str) -> None:
        if self.is_inside:
            self.texts[-1] += data

    def scripts(self) -> dict[str, str]:
        """Id → text; the page's own script has the id "own"."""
        pairs = zip(self.found, self.texts, strict=True)
        return {attributes.get("id") or "own": text for (tag, attributes), text in pairs if tag == "script"}

    def records(self, name: str) -> Any:
        return json.loads(self.scripts()[name])


# What is in the page


def test_runs_members_and_moments_stand_in_order_with_their_mean_scores():
    index = Elements(page_of(ENTRIES, reversed(PREDICTIONS))).records("index")
    assert [run["name"] for run in index["runs"]] == ["sweep", "embedder", "just-started"]
    series = [(one["run"], one["member"], [moment["step"] for moment in one["moments"]]) for one in index["series"]]
    assert series == [(0, "k32", [0, 5]), (0, "k64", [0]), (1, "", [0, 10, 20]), (2, "", [])]
    assert index["series"][2]["moments"][1] == {
        "epoch": 1, "step": 10, "samples": 2, "scores": {"rank": 2.5, "margin": 0.25},
    }  # fmt: skip


def test_a_moments_records_are_whole_and_ground_truth_is_absent_where_there_is_none():
    elements = Elements(page_of(ENTRIES, reversed(PREDICTIONS)))
    first, second = elements.records("moment-2-1")
    assert (first["sample"], first["prompt"], first["truth"]) == (0, "prompt 0", "c")
    assert first["prediction"] == PREDICTIONS[2].prediction
    assert second["scores"] == {"rank": 3, "margin": 0.25}
    assert "truth" not in elements.records("moment-0-0")[0]


def test_numbers_that_are_not_finite_are_null_and_left_out_of_means():
    def scored(sample: int, score: float) -> Prediction:
        return Prediction("r1", "", 0, 0, sample, "p", None, {"kind": "new", "x": [math.inf, (1,)]}, {"fvu": score})

    elements = Elements(page_of([entry("r1")], [scored(0, math.nan), scored(1, 0.5), scored(2, 0.25)]))
    assert elements.records("index")["series"][0]["moments"][0]["scores"] == {"fvu": 0.375}
    first = elements.records("moment-0-0")[0]
    assert (first["scores"], first["prediction"]["x"]) == ({"fvu": None}, [None, [1]])


def test_texts_from_data_stay_texts():
    lone_surrogate = "\ud800"
    hostile = retrieved("r1", 0, 0, f"{HOSTILE.replace(' ', '_')} c", prompt=HOSTILE + lone_surrogate)
    page = page_of([entry("r1", HOSTILE)], [hostile])
    page.encode()  # as it is written
    elements = Elements(page)
    assert not [tag for tag, _ in elements.found if tag == "img"]
    assert set(elements.scripts()) == {"index", "moment-0-0", "own"}
    assert elements.records("index")["runs"][0]["name"] == HOSTILE
    assert elements.records("moment-0-0")[0]["prompt"] == HOSTILE + lone_surrogate
    assert "\u2028" not in page


def test_the_policy_allows_the_pages_own_style_and_script_and_nothing_else():
    page = page_of(ENTRIES, PREDICTIONS)
    elements = Elements(page)
    (policy,) = (at["content"] for _, at in elements.found if at.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style
    for kind, text in (("style", style[1]), ("script", elements.scripts()["own"])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_nothing_is_fetched_and_no_markup_is_made_from_text():
    elements = Elements(page_of(ENTRIES, PREDICTIONS))
    assert {at[name] for _, at in elements.found for name in ("src", "href") if name in at} == {"#samples"}
    own = "".join((files("reports") / "page" / name).read_text(encoding="utf-8") for name in (*SCRIPTS, *STYLES))
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http:", "https:"):
        assert forbidden not in own.replace("http://www.w3.org/2000/svg", ""), forbidden


def test_every_part_is_used_and_short():
    parts = {part.name: part.read_text(encoding="utf-8") for part in (files("reports") / "page").iterdir()}
    assert set(parts) == {"page.html", *STYLES, *SCRIPTS}
    assert max(len(text.splitlines()) for text in parts.values()) < 400


def test_a_page_is_written_from_a_store_for_all_runs_or_for_some(tmp_path):
    with PredictionStore(tmp_path / "predictions.sqlite") as store:
        for one in ENTRIES:
            store.register(one)
        store.write(PREDICTIONS)
        path = tmp_path / "report.html"
        write_page(store, path)
        assert len(Elements(path.read_text()).records("index")["series"]) == 4
        write_page(store, path, runs=["r1"])
        elements = Elements(path.read_text())
        assert [run["id"] for run in elements.records("index")["runs"]] == ["r1"]
        assert len(elements.records("moment-0-2")) == 2
        with pytest.raises(UserError, match="no predictions of run r9"):
            write_page(store, path, runs=["r1", "r9"])
        assert [file.name for file in tmp_path.glob("*.html*")] == ["report.html"]


# In a browser

PATIENCE = 120_000  # milliseconds: a machine may be busy
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium)
        yield started
        started.close()


@pytest.fixture
def open_page(browser: Browser, tmp_path: Path) -> Iterator[Any]:
    """open_page(html, **context) → the page, opened as a file. At the end: nothing was fetched, nothing complained."""
    complaints: list[str] = []
    asked: list[str] = []

    def opened(html: str, **context: Any) -> Page:
        path = tmp_path / "report.html"
        path.write_text(html, encoding="utf-8")
        page = browser.new_context(offline=True, **context).new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        assert asked == [path.as_uri()]
        return page

    yield opened
    assert complaints == []
    assert len(set(asked)) == 1, asked
    for context in browser.contexts:
        context.close()


def choose_run(page: Page, name: str, group: str = "Run and moment") -> None:
    page.get_by_role("group", name=group, exact=True).get_by_label("Run", exact=True).select_option(label=name)


def cells(page: Page, sample: int) -> list[str]:
    """What stands in a sample's row."""
    return (
        page.get_by_role("row")
        .filter(has=page.get_by_label(f"Sample {sample}", exact=True))
        .locator("td")
        .all_inner_texts()
    )


def test_the_slider_moves_by_keyboard_and_the_table_follows(open_page):
    page = open_page(page_of(ENTRIES, PREDICTIONS))
    choose_run(page, "embedder")
    slider = page.get_by_role("slider", name="Moment")
    slider.focus()
    page.keyboard.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", "Epoch 0 · step 0")
    assert cells(page, 0) == ["0", "prompt 0", "c", "a", "3", "0.250"]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "Epoch 2 · step 20")
    expect(slider).to_be_focused()
    assert cells(page, 0) == ["0", "prompt 0", "c", "✓\nc", "1", "0.250"]
    expect(page.get_by_label("Mean scores")).to_contain_text("−1.000 since the first")
    expect(page.get_by_role("img", name="Mean Rank over 3 moments: from 3.000 to 2.000")).to_be_visible()


def test_a_sample_is_opened_and_watched_through_time_by_keys_alone(open_page):
    page = open_page(page_of([ENTRIES[1]], PREDICTIONS[:6]))
    expect(page.get_by_text("The true positive stands at rank 1 among 9 texts")).to_be_visible()  # the first is open
    page.get_by_label("Sample 0", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("The true positive stands at rank 2 among 9 texts")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_label("Sample 1", exact=True)).to_have_attribute("aria-expanded", "true")
    expect(page.get_by_text("The true positive stands at rank 3 among 9 texts")).to_be_visible()
    page.get_by_role("columnheader", name="Rank").get_by_role("button").press("Enter")
    page.keyboard.press("Enter")
    assert page.locator("tr.sample .index").all_inner_texts() == ["1", "0"]


def test_search_filters_and_says_so(open_page):
    page = open_page(page_of([ENTRIES[1]], PREDICTIONS[:6]))
    page.keyboard.press("/")
    page.keyboard.type("NEEDLE")
    expect(page.get_by_role("status")).to_have_text("1 of 2 samples")
    assert page.locator("tr.sample .prompt").all_inner_texts() == ["needle in a haystack"]
    assert page.evaluate("[...CSS.highlights.get('found')].map(String)") == ["needle"]
    page.get_by_role("searchbox").fill("nowhere")
    expect(page.get_by_text("No sample here contains “nowhere”.")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("status")).to_have_text("2 samples")


def test_two_moments_are_compared_and_what_moved_is_marked(open_page):
    page = open_page(page_of([ENTRIES[1]], PREDICTIONS[:6]))
    page.get_by_role("radio", name="Compare two").check()
    expect(page.get_by_role("status")).to_have_text("2 samples, 1 changed")
    card = page.get_by_role("article", name="Sample 0", exact=True)
    assert card.get_by_label("Retrieved in A").locator(".move").all_inner_texts() == ["▼ 2", "gone", "▲ 2"]
    assert card.get_by_label("Retrieved in B").locator(".move").all_inner_texts() == ["▲ 2", "new", "▼ 2"]
    assert card.locator("dd").first.inner_text().split() == ["3", "→", "1", "−2"]
    page.get_by_label("Only what changed").check()
    expect(page.get_by_role("article")).to_have_count(1)
    page.get_by_role("button", name="Swap A and B").click()
    assert card.locator("dd").first.inner_text().split() == ["1", "→", "3", "+2"]
    page.reload()  # the address keeps the view
    assert card.locator("dd").first.inner_text().split() == ["1", "→", "3", "+2"]


def test_two_runs_that_share_no_sample_are_compared_in_a_sentence(open_page):
    page = open_page(page_of(ENTRIES, PREDICTIONS))
    page.get_by_role("radio", name="Compare two").check()
    choose_run(page, "embedder", "B")
    expect(page.get_by_text("These two moments share no sample")).to_be_visible()
    expect(page.get_by_role("article", name="Sample 0, only in A")).to_contain_text("def f")
    choose_run(page, "just-started", "A")
    choose_run(page, "just-started", "B")
    expect(page.get_by_text("Neither of these runs has predictions yet.")).to_be_visible()


def strengths(page: Page) -> list[float]:
    read = "made => Number(made.style.getPropertyValue('--strength'))"
    return page.locator(".token").evaluate_all(f"all => all.map({read})")


def test_tokens_are_shaded_by_error_or_by_a_latent_that_is_chosen(open_page):
    page = open_page(page_of([ENTRIES[0]], PREDICTIONS[6:]))
    assert page.locator(".token").all_inner_texts() == ["def", " f"]
    assert strengths(page) == [0, 1]  # by error
    page.locator(".token").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".token").nth(1)).to_be_focused()
    about = page.locator(".about")
    expect(about).to_contain_text("error 0.100")
    about.get_by_role("button", name="Latent 7, 4.00").press("Enter")
    assert strengths(page) == [1, 0.5]
    chosen = page.get_by_role("group", name="Shade the tokens by").get_by_role("button", name="Latent 7, 8.00")
    expect(chosen).to_have_attribute("aria-pressed", "true")
    chosen.click()
    assert strengths(page) == [0, 1]


def test_changed_latents_and_continuations_are_marked(open_page):
    page = open_page(page_of([ENTRIES[0]], PREDICTIONS[6:]))
    page.get_by_role("radio", name="Compare two").check()
    assert page.locator(".token.changed").all_inner_texts() == [" f"]
    lists = [text.split("\n") for text in page.locator(".latent-list").all_inner_texts()]
    assert lists == [
        ["Only in A", "9", "1.00"],
        ["Only in B", "5", "2.00"],
        ["Stronger or weaker in B", "7", "4.00 → 8.00"],
    ]
    assert page.locator("del").all_inner_texts() == ["another"]
    assert page.locator("ins").all_inner_texts() == ["one"]


def test_text_from_data_is_never_run(open_page):
    hostile = retrieved("r1", 0, 0, "a b c", prompt=HOSTILE)
    unknown = Prediction(
        "r1", "", 0, 0, 1, HOSTILE + "2", HOSTILE, {"kind": "toString", HOSTILE: HOSTILE}, {HOSTILE: 1.0}
    )
    tokens = fired("r2", HOSTILE, 0, {HOSTILE: [[1, 1.0]]}, HOSTILE)
    page = open_page(page_of([entry("r2", HOSTILE), entry("r1", HOSTILE)], [hostile, unknown, tokens]))
    expect(page.locator(".token")).to_contain_text("<script>window.hacked = 1</script></script><img")
    for view in ("One moment", "Compare two"):
        page.get_by_role("radio", name=view).check()
        for picker in page.get_by_label("Run", exact=True).all():
            picker.select_option(index=1)
    page.get_by_role("radio", name="One moment").check()
    page.get_by_label("Sample 1", exact=True).click()
    expect(page.locator(".opened:visible .told").last).to_contain_text('"kind": "toString"')
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, iframe, object, embed").count() == 0
    assert page.locator("script").count() == 4  # index, two moments, the page's own


@pytest.mark.parametrize(
    "content", [{"kind": "retrieval", "retrieved": [{"text": 3}]}, {"kind": "latents", "tokens": 1}]
)
def test_a_known_kind_that_is_not_as_it_should_be_is_shown_as_json(open_page, content):
    odd = [Prediction("r1", "", epoch, epoch, 0, "p", None, content | {"at": epoch}, {}) for epoch in range(2)]
    page = open_page(page_of([ENTRIES[1]], odd))
    expect(page.locator(".told .block")).to_contain_text(f'"kind": "{content["kind"]}"')
    page.get_by_role("radio", name="Compare two").check()
    assert page.locator("ins").all_inner_texts() == ["1"]


def test_an_empty_store_is_said_in_a_sentence(open_page):
    expect(open_page(page_of([], [])).get_by_text("No predictions have been recorded yet")).to_be_visible()


def test_a_run_without_predictions_is_said_in_a_sentence(open_page):
    page = open_page(page_of([ENTRIES[2]], []))
    expect(page.get_by_text("This run has no predictions yet.")).to_be_visible()


def test_light_and_dark_follow_the_system_until_one_is_chosen(open_page):
    page = open_page(page_of([ENTRIES[1]], PREDICTIONS[:6]), color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.get_by_role("button", name="Switch to light").click()
    light = page.evaluate(colour)
    assert sum(map(int, re.findall(r"\d+", light))) > 600 > 200 > sum(map(int, re.findall(r"\d+", dark)))
    page.reload()
    assert page.evaluate(colour) == light


def test_a_phone_shows_all_without_scrolling_sideways(open_page):
    page = open_page(page_of(ENTRIES, PREDICTIONS), viewport={"width": 360, "height": 740})
    for view in ("One moment", "Compare two"):
        page.get_by_role("radio", name=view).check()
        for run in ("embedder", "sweep"):
            page.get_by_label("Run", exact=True).last.select_option(label=run)
            assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_of_many_samples_only_some_rows_are_made(open_page):
    many = [retrieved("r1", 0, sample, "a b c") for sample in range(1500)]
    page = open_page(page_of([ENTRIES[1]], many))
    expect(page.get_by_role("status")).to_have_text("1,500 samples")
    expect(page.locator("tr.sample")).to_have_count(100)
    page.get_by_role("button", name="Show 100 more").click()
    expect(page.locator("tr.sample")).to_have_count(200)
