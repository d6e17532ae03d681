"""What a person can do on the page of what fine-tuning changed, done in a real browser."""

from __future__ import annotations

from dataclasses import replace

import pytest
from playwright.sync_api import expect

from reports.difference import page_of
from tests.reports.difference.subjects import compared, with_groups

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory):
    return compared(tmp_path_factory.mktemp("compared"))


@pytest.fixture
def subject(plain):
    return with_groups(plain)


def test_bars_say_what_of_the_gain_hangs_on_each_part(open_page, subject):
    page = open_page(page_of(subject))
    bars = page.get_by_label("What the gain in retrieval hangs on").get_by_role("img")
    expect(bars).to_have_count(6)
    expect(bars.nth(2)).to_have_attribute(
        "aria-label",
        "born: 20% of the gain is lost without it, 95% interval 10% to 30%; 25% is there with it alone",
    )
    assert page.locator(".bar-value").all_inner_texts() == ["40%", "25%", "20%", "−5%", "5%", "15%"]


def test_groups_are_gone_through_by_keys_and_latents_opened(open_page, subject):
    page = open_page(page_of(subject))
    born = page.get_by_role("radio", name="born")
    expect(born).to_be_checked()
    born.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("radio", name="rotated")).to_be_focused()
    expect(page.get_by_role("status")).to_contain_text("latents, rotated: both models have it")
    first = page.locator("details").first
    assert not first.locator(".contexts").is_visible()
    first.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(first.locator(".contexts")).to_be_visible()
    expect(first.locator(".where").first).to_contain_text("example/")
    assert first.locator(".token.marked").count() > 0


def test_a_card_leads_to_its_group_and_a_dot_to_its_latent(open_page, subject):
    page = open_page(page_of(subject))
    page.get_by_role("button", name="died").click()
    expect(page.get_by_role("radio", name="died")).to_be_focused()
    dots = page.get_by_label("Where the latents stand")
    expect(dots.get_by_role("img")).to_have_attribute("aria-label", _in_words(subject))
    dots.locator("circle.shared").first.click(force=True)
    expect(page.get_by_role("radio", name="shared")).to_be_checked()
    expect(page.locator("details[open]")).to_have_count(1)


def _in_words(subject):
    counts = [len(subject.difference.members(place)) for place in range(4)]
    shares = ", ".join(
        f"{count} {name}" for count, name in zip(counts, ("shared", "rotated", "born", "died"), strict=True)
    )
    return f"{sum(counts)} latents by relative decoder norm and cosine of the two decoder rows: {shares}"


def test_a_page_without_a_gain_says_why(open_page, plain):
    page = open_page(page_of(plain))
    expect(page.get_by_text("There is no gain to share out.", exact=True)).to_be_visible()
    expect(page.locator(".bar-row")).to_have_count(0)


def test_text_from_data_is_never_run(open_page, subject):
    evil = "</script><img src=x onerror='window.hacked = 1'><b>"
    made = replace(subject, name=evil)
    for latent in range(len(made.labels)):
        made.labels[latent] = evil
    page = open_page(page_of(made))
    expect(page.locator(".latent-name b").first).to_have_text(evil)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("width", [360, 700, 1240])
def test_nothing_is_wider_than_the_window(open_page, subject, width):
    page = open_page(page_of(subject), viewport={"width": width, "height": 740})
    page.locator("summary").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(".scatter").bounding_box()["width"] <= width


def test_light_and_dark_follow_the_system_until_one_is_chosen(open_page, subject):
    page = open_page(page_of(subject), color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.get_by_role("button", name="Switch to light").click()
    assert page.evaluate(colour) != dark
