"""What a person can do on the page of an explained ranking, in a real browser; and that no text of it is run there."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from reports.explanation import page_of
from tests.reports.explained import explained

pytestmark = pytest.mark.slow


def test_a_latent_is_marked_in_every_text_by_click_and_by_keyboard(open_page):
    page = open_page(page_of(explained()[0]))
    query, first = page.get_by_label("Query"), page.get_by_label("Document 2", exact=True)
    # the strongest latent of the first document is marked at first
    expect(query.locator("mark")).to_have_text([" open"])
    assert first.locator("mark").all_inner_texts() == [" open", " <script>"]
    latent = page.get_by_role("article").first.get_by_label("Latents of both").get_by_role("button", name="3")
    latent.click()
    expect(latent).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("status").filter(has_text="latent 3, on 1 token")).to_be_visible()
    assert first.locator("mark").count() == 1
    page.keyboard.press("Escape")
    expect(page.locator("mark:visible")).to_have_count(0)
    latent.focus()
    page.keyboard.press("Enter")
    expect(first.locator("mark")).to_have_count(1)


def test_bars_say_what_the_cosine_is_made_of(open_page):
    page = open_page(page_of(explained()[0]))
    bar = page.get_by_role("img").first
    expect(bar).to_have_attribute(
        "aria-label", "Cosine 0.500: same latent +0.180, pairs +0.070, bias +0.030, error +0.220"
    )
    assert page.get_by_role("article").first.get_by_text("without the clamp: 0.400, rank 2").is_visible()
    assert page.get_by_text("cut where the model stops reading").first.is_visible()
    # the piece of an amount is as long as its share of the longest bar
    widths = [piece.bounding_box()["width"] for piece in bar.locator(".piece").all()]
    whole = bar.bounding_box()["width"]
    assert [width / whole for width in widths] == pytest.approx([0.36, 0.14, 0.06, 0.44], abs=0.01)


def test_two_documents_are_compared_as_chosen(open_page):
    explanation, difference = explained()
    page = open_page(page_of(explanation, difference))
    expect(page.get_by_label("Two documents compared")).to_be_visible()
    expect(page.get_by_role("article").first).to_be_hidden()
    rows = page.get_by_role("row")
    expect(rows.last).to_contain_text("+0.100")
    expect(rows.nth(1)).to_contain_text("near alert")
    page.get_by_role("radio", name="Ranking").check(force=True)
    expect(page.get_by_role("article").first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_sideways(open_page, scheme):
    page = open_page(page_of(*explained()), viewport={"width": 360, "height": 740}, color_scheme=scheme, has_touch=True)
    for view in ("Ranking", "Compare two"):
        page.get_by_role("radio", name=view).check(force=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
