"""What a person can do on the page of predictions, done in a real browser; and that no text of it is run there."""

import re

import pytest
from playwright.sync_api import Page, expect

from reports.predictions_page import page_of
from run_store.predictions import Prediction
from tests.reports.predictions import ENTRIES, HOSTILE, PREDICTIONS, entry, fired, retrieved


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
