"""The pages in headless Chromium; screenshots go to `screenshots/`, which git ignores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hostile_snapshot import HOSTILE, SCREENSHOTS, hostile

pytestmark = pytest.mark.slow
WIDTHS = (1280, 390)
PAGES = {
    "overview": "/",
    "people": "/people",
    "person": "/person?id=u3",
    "interests": "/interests",
    "items": "/items",
    "item": "/item?id=i0",
}


class Watched:
    """A page that remembers what went wrong on it."""

    def __init__(self, browser: Any, width: int = 1280, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 850}, color_scheme=scheme)
        self.wrong: list[str] = []
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))

    def open(self, url: str) -> Any:
        self.page.goto(url)
        self.until("[...document.querySelectorAll('.chart[data-chart]')].every((each) => each.dataset.drawn)")
        return self.page

    def until(self, condition: str) -> None:
        """Playwright's own `wait_for_function` evaluates text in the page, which the page's policy forbids."""
        for _ in range(200):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"did not come true: {condition}")

    def settle(self) -> None:
        self.page.wait_for_timeout(600)  # animations


@pytest.fixture(params=WIDTHS)
def watched(browser: Any, request: pytest.FixtureRequest) -> Iterator[Watched]:
    made = Watched(browser, request.param)
    yield made
    made.page.close()
    assert made.wrong == []


@pytest.mark.parametrize("name", PAGES)
def test_pages_fit_their_window_and_report_no_error(watched: Watched, address: str, name: str) -> None:
    page = watched.open(address + PAGES[name])
    watched.settle()
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}-{width}.png", full_page=True)


def test_a_click_goes_into_the_map_and_shows_the_node_beside_it(watched: Watched, address: str) -> None:
    page = watched.open(f"{address}/interests")
    watched.settle()
    chart = page.locator(".chart.map")
    box = chart.bounding_box()
    assert chart.get_attribute("data-root") == ""
    page.mouse.click(box["x"] + 60, box["y"] + 60)
    watched.until("document.querySelector('.chart.map').dataset.root !== ''")
    watched.until("document.querySelector('#panel h2').textContent !== 'everything'")
    assert "node=" in page.url
    inside = chart.get_attribute("data-root")
    page.wait_for_timeout(1500)  # the trail does not answer while the map moves
    page.mouse.click(box["x"] + 25, box["y"] + box["height"] - 18)  # the first crumb
    watched.until("document.querySelector('.chart.map').dataset.root === ''")
    assert inside


def test_an_address_with_a_node_opens_the_map_there(watched: Watched, address: str) -> None:
    watched.open(f"{address}/interests?node=3")
    watched.until("document.querySelector('.chart.map').dataset.root === '3'")


def test_a_person_page_shows_reasons_and_who_said_so(watched: Watched, address: str) -> None:
    page = watched.open(f"{address}/person?id=u3")
    assert page.locator("#slate .why li").first.inner_text().startswith("because you")
    who = page.locator("#slate details").first
    who.locator("summary").click()
    assert "tiny-teacher-7b" in who.inner_text()


def test_search_answers_while_one_types(watched: Watched, address: str) -> None:
    page = watched.open(f"{address}/items")
    page.get_by_label("Find an item").fill("crime story 12")
    watched.until("document.querySelectorAll('#found .title').length < 6")
    assert "Crime story 120" in page.locator("#found").inner_text()


def test_hostile_texts_run_nothing(watched: Watched, hostile_address: str) -> None:
    for number in range(len(HOSTILE)):
        wanted = quote(hostile(number), safe="")
        for path in (f"/item?id={wanted}", f"/person?id={wanted}"):
            page = watched.open(hostile_address + path)
            assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    page = watched.open(f"{hostile_address}/interests")
    watched.settle()
    box = page.locator(".chart.map").bounding_box()
    for step in range(6):  # over tooltips
        page.mouse.move(box["x"] + 30 + step * box["width"] / 7, box["y"] + box["height"] / 2)
        page.wait_for_timeout(60)
    watched.open(f"{hostile_address}/")
    watched.settle()


def test_the_dark_page_is_drawn_dark(browser: Any, address: str) -> None:
    watched = Watched(browser, scheme="dark")
    page = watched.open(f"{address}/item?id=i0")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    watched.settle()
    page.screenshot(path=SCREENSHOTS / "item-dark.png", full_page=True)
    page.close()
    assert watched.wrong == []
