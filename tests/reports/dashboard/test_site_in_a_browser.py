"""What a person can do on the dashboard, done in a real browser; and that no text of it is run there."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from reports.dashboard import write_site
from tests.reports.dashboard.subjects import HOSTILE, store_of_text, subject_of

PATIENCE = 120_000  # milliseconds: a machine may be busy
expect.set_options(timeout=PATIENCE)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium)
        yield started
        started.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("site")
    write_site(subject_of(store_of_text(folder / "store", HOSTILE), spoken=True), folder / "out")
    return (folder / "out" / "index.html").as_uri()


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Any]:
    """open_page(hash, **context) → the page, opened as a file. At the end: nothing complained, and nothing was read but
    files beside it.
    """
    complaints: list[str] = []
    asked: list[str] = []

    def opened(view: str = "", **context: Any) -> Page:
        page = browser.new_context(offline=True, **context).new_page()
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address + view)
        return page

    yield opened
    assert complaints == []
    assert all(url.startswith(address.rpartition("/")[0]) for url in asked), asked
    for context in browser.contexts:
        context.close()


def test_the_first_page_shows_content_before_any_file_is_read(open_page, browser, address):
    page = open_page(java_script_enabled=False)
    expect(page.get_by_role("heading", name="Begin with these")).to_be_visible()
    expect(page.get_by_text("0.1250")).to_be_visible()
    assert page.locator(".latent-card").count() >= 2


def test_a_latent_is_searched_for_opened_and_a_neighbour_followed(open_page):
    page = open_page()
    page.keyboard.press("/")
    page.keyboard.type("CAT")
    expect(page.get_by_role("status")).to_have_text(re.compile("^[1-9]\\d* latents?$"))
    expect(page.locator(".latent-row .name").first).to_have_text("cat")
    page.locator("a.latent-row").first.click()
    expect(page.get_by_role("heading", name="cat", exact=True)).to_be_visible()
    marked = page.get_by_label("Where it fires most").locator(".marked")
    assert set(marked.all_inner_texts()) == {"cat"}
    partner = page.get_by_label("Fires together with").get_by_role("link").first
    expect(partner).to_contain_text("9")
    neighbour = page.get_by_label("Nearest decoder rows").get_by_role("link").first
    number = neighbour.locator(".number").inner_text()
    neighbour.click()
    expect(page.locator(".latent-head")).to_contain_text(f"Latent {number} ·")
    page.go_back()
    expect(page.get_by_role("heading", name="cat", exact=True)).to_be_visible()
    page.go_back()
    expect(page.get_by_role("searchbox")).to_have_value("CAT")


def test_latents_are_found_by_the_token_they_fire_on_and_by_their_contexts(open_page):
    page = open_page("#/latents?q=cat")
    page.get_by_role("link", name="Fires on this token").click()
    expect(page.get_by_text("fires on 100% of “cat”")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("1 latent")
    page.get_by_role("link", name="Contexts").click()
    expect(page.locator("a.latent-row .number", has_text=re.compile("^1$"))).to_be_visible()
    assert set(page.evaluate("[...CSS.highlights.get('found')].map(String)")) == {"cat"}
    page.get_by_role("searchbox").fill("no such words")
    expect(page.get_by_text("No latent is found by “no such words” here.")).to_be_visible()


def test_the_list_is_filtered_and_sorted(open_page):
    page = open_page("#/latents")
    expect(page.get_by_role("status")).to_have_text("12 latents")
    page.get_by_role("link", name="Dead").click()
    assert page.locator("a.latent-row .number").all_inner_texts() == ["8", "10", "11"]
    page.get_by_role("navigation", name="Which latents").get_by_role("link", name="All").click()
    page.get_by_label("Order").select_option("Most frequent")
    expect(page.locator("a.latent-row .number").first).to_have_text("9")
    page.reload()  # the address keeps the view
    expect(page.locator("a.latent-row .number").first).to_have_text("9")


def test_keys_move_between_latents_and_views(open_page):
    page = open_page("#/latent/1")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".latent-head")).to_contain_text("Latent 2 ·")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".latent-head")).to_contain_text("Latent 0 ·")
    page.keyboard.press("m")
    expect(page.locator("canvas")).to_have_attribute("data-drawn", "9")
    page.keyboard.press("o")
    expect(page.get_by_role("heading", name="Begin with these")).to_be_visible()


def test_a_dot_on_the_map_opens_its_latent(open_page):
    page = open_page("#/map")
    canvas = page.locator("canvas")
    expect(canvas).to_have_attribute("data-drawn", "9")
    x, y = page.evaluate("mapScale.place(2)")
    canvas.hover(position={"x": x, "y": y})
    expect(page.locator(".tip")).to_contain_text("sat")
    canvas.click(position={"x": x, "y": y})
    expect(page.locator(".latent-head")).to_contain_text("Latent 2 ·")


def test_what_latents_speak_for_is_shown(open_page):
    page = open_page("#/latent/1")
    expect(page.get_by_label("Speaks for").locator(".chip").first).to_have_text(" the")
    expect(page.get_by_label("Speaks against")).to_be_visible()


def test_text_from_data_is_never_run(open_page):
    page = open_page("#/latent/6")
    expect(page.locator(".latent-head h2")).to_contain_text("<script>window.hacked = 1</script>")
    expect(page.get_by_label("Where it fires most").locator(".where").first).to_contain_text("<img src=x")
    page.goto(page.url.partition("#")[0] + "#/latents?q=script&where=contexts")
    expect(page.locator("a.latent-row .number", has_text=re.compile("^6$"))).to_be_visible()
    page.keyboard.press("o")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, iframe, object, embed").count() == 0
    refused = (
        "address => { try { return ownFiles.createScriptURL(address), 'run' } catch (error) { return error.name } }"
    )
    assert page.evaluate(refused, "https://example.org/data/tokens.js") == "TypeError"


def test_light_and_dark_follow_the_system_until_one_is_chosen(open_page):
    page = open_page(color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.get_by_role("button", name="Switch to light").click()
    light = page.evaluate(colour)
    assert sum(map(int, re.findall(r"\d+", light))) > 600 > 200 > sum(map(int, re.findall(r"\d+", dark)))


def test_a_phone_shows_all_without_scrolling_sideways(open_page):
    page = open_page(viewport={"width": 390, "height": 844})
    for view in ("#/", "#/latents", "#/latents?q=cat&where=contexts", "#/latent/6", "#/latent/10", "#/map"):
        page.goto(page.url.partition("#")[0] + view)
        expect(page.locator("main > section:visible")).to_have_count(1)
        page.wait_for_function("!document.querySelector('[aria-busy]')")
        assert page.evaluate("document.documentElement.scrollWidth") == 390, view


def test_a_missing_file_is_told(open_page, browser, address, tmp_path):
    write_site(subject_of(store_of_text(tmp_path / "store")), tmp_path / "out")
    (tmp_path / "out" / "data" / "latents-0000.js").unlink()
    page = browser.new_page()
    page.goto((tmp_path / "out" / "index.html").as_uri() + "#/latent/1")
    expect(page.get_by_text("data/latents-0000.js is missing beside this page")).to_be_visible()
    page.close()
