"""The labelling page in headless Chromium: by keyboard, reloaded, undone, two at once, killed."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hostile_snapshot import HOSTILE, SCREENSHOTS
from label_desk import make_desk
from test_browser import Watched

from palate.console.label_pages import create_label_app
from palate.knowledge.golden_queue import Pick, extend_queue
from palate.knowledge.rater_labels import RaterLabels, file_stem

pytestmark = pytest.mark.slow


class Labeller(Watched):
    """A rater at the page."""

    def begin(self, address: str, rater: str) -> Labeller:
        self.rater = rater
        self.open(f"{address}/label")
        self.page.get_by_label("Your name").fill(rater)
        with self.page.expect_navigation():
            self.page.keyboard.press("Enter")
        self.until("document.body.dataset.ready === 'yes'")
        return self

    @property
    def done(self) -> int:
        return int(self.page.evaluate("document.body.dataset.done"))

    def press(self, key: str) -> None:
        """A key that labels, and wait until the page says that it was saved."""
        before = self.done
        self.page.keyboard.press(key)
        self.until(f"document.body.dataset.done == {before + 1}")

    def shown(self) -> str:
        return str(self.page.locator("main").inner_text())


@pytest.fixture
def address(serve: Any, tmp_path: Path) -> Iterator[str]:
    with serve(create_label_app(make_desk(tmp_path))) as found:
        yield found


@pytest.fixture
def new(browser: Any) -> Iterator[Any]:
    made: list[Labeller] = []

    def labeller(**more: Any) -> Labeller:
        made.append(Labeller(browser, **more))
        return made[-1]

    yield labeller
    for each in made:
        each.page.close()
        assert each.wrong == []


def kept(folder: Path, rater: str) -> dict[tuple[str, str], str]:
    return {key: label.label for key, label in RaterLabels(folder, rater).current().items()}


def test_thirty_items_by_keyboard_reloaded_in_the_middle_lose_nothing(new, address, tmp_path):
    labeller = new().begin(address, "anna")
    keys = ["1", "2", "u", "3"]
    pressed: dict[tuple[str, str], str] = {}
    while len(pressed) < 40:  # 20 items, two questions each
        at = int(labeller.page.evaluate("document.body.dataset.place"))
        item, column = f"i{at // 2}", at % 2
        key = keys[len(pressed) % (3 if column == 0 else 4)]
        options = (("Yes", "No"), ("dark", "mixed", "light"))[column]
        labeller.press(key)
        pressed[item, ("funny", "mood")[column]] = "unsure" if key == "u" else options[int(key) - 1]
        if len(pressed) in (17, 31):
            labeller.page.reload()
            labeller.until("document.body.dataset.ready === 'yes'")
            assert labeller.done == len(pressed)
        if len(pressed) == 23:
            labeller.settle()
            SCREENSHOTS.mkdir(exist_ok=True)
            labeller.page.screenshot(path=SCREENSHOTS / "label.png")
    assert kept(tmp_path / "golden", "anna") == pressed
    assert "thank you" in labeller.shown()


def test_undo_comment_arrows_and_change(new, address, tmp_path):
    labeller = new().begin(address, "anna")
    page = labeller.page
    page.keyboard.press("c")
    page.keyboard.type("u and 1 are text here")
    page.reload()
    labeller.until("document.body.dataset.ready === 'yes'")
    assert page.locator("#comment").input_value() == "u and 1 are text here"
    page.keyboard.press("c")
    page.keyboard.press("Escape")
    labeller.press("1")
    labeller.press("2")
    page.keyboard.press("z")
    labeller.until("document.body.dataset.done == 1")
    assert page.evaluate("document.body.dataset.place") == "1"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#comment").input_value() == "u and 1 are text here"
    assert page.locator('#options [aria-pressed="true"]').inner_text().startswith("1")
    page.keyboard.press("2")
    labeller.until("document.querySelector('#status').textContent.startsWith('Saved funny: No')")
    (label,) = RaterLabels(tmp_path / "golden", "anna").current().values()
    assert (label.label, label.comment) == ("No", "u and 1 are text here")
    page.keyboard.press("z")
    labeller.until("document.querySelector('#status').textContent.startsWith('Took back funny: No')")
    assert kept(tmp_path / "golden", "anna") == {("i0", "funny"): "Yes"}
    page.keyboard.press("z")
    labeller.until("document.body.dataset.done == 0")
    page.keyboard.press("z")
    labeller.until("document.querySelector('#status').textContent === 'There is nothing to undo.'")


def test_two_raters_and_two_windows_of_one_do_not_overwrite_each_other(new, address, tmp_path):
    anna, ben, again = (new().begin(address, rater) for rater in ("anna", "Bén / ../..", "anna"))
    for _ in range(6):
        anna.press("1")
        ben.press("2")
    folder = tmp_path / "golden"
    assert set(kept(folder, "anna").values()) == {"Yes", "dark"}
    assert set(kept(folder, "Bén / ../..").values()) == {"No", "mixed"}
    assert sorted(path.name for path in folder.glob("*.csv")) == sorted(["anna.csv", f"{file_stem('Bén / ../..')}.csv"])
    again.page.keyboard.press("2")  # this window still shows the first item as open
    again.until("!document.querySelector('#trouble').hidden")
    assert "labelled in another window" in again.page.locator("#trouble").inner_text()
    assert kept(folder, "anna")["i0", "funny"] == "Yes"
    again.page.keyboard.press("2")
    again.until("document.querySelector('#status').textContent.startsWith('Saved funny: No')")
    assert kept(folder, "anna")["i0", "funny"] == "No"
    assert len(kept(folder, "anna")) == 6
    again.wrong = [said for said in again.wrong if "409" not in said]  # the browser's own note of the refusal


def test_hostile_texts_are_shown_as_text(new, serve, tmp_path):
    with serve(create_label_app(make_desk(tmp_path, len(HOSTILE), HOSTILE))) as address:
        labeller = new(width=390).begin(address, '<b>"x"</b>')
        for number, title in enumerate(HOSTILE):
            assert labeller.page.locator("#title").inner_text() == title.strip()
            text = "This item has no text." if number == 2 else f"A story about {title}."
            assert text in labeller.page.locator("#text").text_content()
            assert labeller.page.evaluate("document.documentElement.scrollWidth") <= 390
            assert labeller.page.locator("main script, main svg, #title img, #text img, main b").count() == 0
            labeller.page.keyboard.press("ArrowRight")
            labeller.page.keyboard.press("ArrowRight")


def test_it_is_pleasant_in_the_dark_too(new, address):
    labeller = new(scheme="dark").begin(address, "anna")
    labeller.press("1")
    labeller.settle()
    SCREENSHOTS.mkdir(exist_ok=True)
    labeller.page.screenshot(path=SCREENSHOTS / "label-dark.png")
    assert labeller.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    items = pl.DataFrame({"item_id": [f"i{n}" for n in range(30)], "title": [f"Film {n}" for n in range(30)]})
    items.write_csv(tmp_path / "items.csv")
    (tmp_path / "events.csv").write_text("user_id,item_id,timestamp\nu,i1,1600000000\nu,i2,1600000100\n")
    (tmp_path / "attributes").mkdir()
    (tmp_path / "attributes" / "a.yaml").write_text("name: calm\nquestion: Is this calm?\n")
    (tmp_path / "palate.yaml").write_text("data: {items: items.csv, events: events.csv}\n")
    return tmp_path


def start(project: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "palate", "golden", "label", "--project", str(project), "--port", str(port)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE)
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/console/label", timeout=1).close()
            return child
        except OSError:
            assert child.poll() is None, child.stderr and child.stderr.read().decode()
            time.sleep(0.05)
    raise AssertionError("the server does not answer")


def test_a_killed_server_loses_nothing_that_was_shown_as_saved(new, project):
    folder = project / "golden"
    extend_queue(folder, [Pick(f"i{n}", "random", 1.0) for n in range(30)])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    child = start(project, port)
    try:
        labeller = new().begin(f"http://127.0.0.1:{port}/console", "anna")
        for _ in range(8):
            labeller.press("1")
        labeller.page.keyboard.press("2")
        child.send_signal(signal.SIGKILL)
        child.communicate()
        labeller.page.wait_for_timeout(300)
        saved = labeller.done
        assert 8 <= saved <= len(kept(folder, "anna")) <= 9  # one may be on the disk before the page heard of it
        labeller.page.keyboard.press("2")
        labeller.until("!document.querySelector('#trouble').hidden")
        assert "Not saved: the server does not answer" in labeller.page.locator("#trouble").inner_text()
        child = start(project, port)
        labeller.page.keyboard.press("ArrowRight")  # the same page goes on: it asks for the new server's token
        labeller.press("2")
        labeller.page.reload()
        labeller.until("document.body.dataset.ready === 'yes'")
        assert labeller.done == len(kept(folder, "anna")) >= saved + 1
    finally:
        child.kill()
        child.communicate()
    labeller.wrong = [said for said in labeller.wrong if "ERR_" not in said and "403" not in said]
