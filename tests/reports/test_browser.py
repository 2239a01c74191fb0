"""The page of a run in a real browser, opened from disk."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from clrelkt.reports.finish import write_report

OpenBrowser = Callable[..., AbstractContextManager[Any]]

PHONE = 375


@pytest.fixture(scope="module")
def browser(open_browser: OpenBrowser) -> Iterator[Any]:
    with open_browser() as driver:
        yield driver


@pytest.fixture
def opened(browser: Any, reported: Path) -> Any:
    """The browser with the report before it, nothing logged yet but what the page brought about."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.set_window_size(1280, 1000)
    browser.get((reported / "report.html").as_uri())
    return browser


def requested(browser: Any) -> list[str]:
    """Return the addresses that the page asked for, its own among them."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def move_to(browser: Any, selector: str) -> None:
    """Move the real pointer to the middle of an element."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    element = browser.find_element(By.CSS_SELECTOR, selector)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    ActionChains(browser).move_to_element(element).perform()


def tip(browser: Any) -> str | None:
    """Return the text of the tooltip, None where it is hidden."""
    text: str | None = browser.execute_script(
        "const tip = document.getElementById('tip'); return tip.hidden ? null : tip.innerText"
    )
    return text


def test_the_page_opens_from_disk_and_asks_for_nothing_else(opened: Any, reported: Path) -> None:
    assert opened.title == "clrelkt: tiny, seed 0"
    assert requested(opened) == [(reported / "report.html").as_uri()]
    assert opened.get_log("browser") == []
    drawn = opened.execute_script("return document.querySelectorAll('svg.figure use').length")
    assert drawn > 20


def test_pointing_at_a_mark_shows_its_text(opened: Any, reported: Path) -> None:
    assert tip(opened) is None
    texts = json.loads((reported / "portrait.json").read_text("utf-8"))["texts"]
    number = next(n for n, text in enumerate(texts) if text["language"] == "ru")
    # Marks may lie on each other; the pointer finds the nearest, one of the same place.
    move_to(opened, f'svg.map [data-i="{number}"]')
    shown = tip(opened)
    assert shown is not None
    assert shown.split("\n")[0] in {text["text"] for text in texts}
    move_to(opened, "h1")
    assert tip(opened) is None
    assert opened.get_log("browser") == []


def test_the_keyboard_walks_through_the_marks(opened: Any, reported: Path) -> None:
    from selenium.webdriver import Keys
    from selenium.webdriver.common.by import By

    texts = json.loads((reported / "portrait.json").read_text("utf-8"))["texts"]
    map_ = opened.find_element(By.CSS_SELECTOR, "svg.map")
    seen = set()
    for _ in range(4):
        map_.send_keys(Keys.ARROW_RIGHT)
        shown = tip(opened)
        assert shown is not None
        seen.add(shown.split("\n")[0])
    assert len(seen) == 4
    assert seen <= {text["text"] for text in texts}
    rings = opened.execute_script("return document.querySelectorAll('svg.map circle.ring').length")
    assert rings == 2  # The same text before and after.
    map_.send_keys(Keys.ESCAPE)
    assert tip(opened) is None


def test_a_language_can_be_chosen(opened: Any, reported: Path) -> None:
    from selenium.webdriver.common.by import By

    texts = json.loads((reported / "portrait.json").read_text("utf-8"))["texts"]
    german = sum(text["language"] == "de" for text in texts)
    count = "return document.querySelectorAll('svg.map use[data-i]:not([hidden])').length"
    every = opened.execute_script(count)
    button = opened.find_element(By.CSS_SELECTOR, 'button[data-language="de"]')
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert opened.execute_script(count) == 2 * german < every
    button.click()
    assert opened.execute_script(count) == every


def test_it_fits_a_phone_and_a_sheet_of_paper(opened: Any) -> None:
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": PHONE, "height": 800, "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        width = opened.execute_script("return document.documentElement.scrollWidth")
        assert width <= PHONE
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    printed = opened.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF")
    assert 2 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") <= 20


def test_light_and_dark(opened: Any) -> None:
    from selenium.webdriver.common.by import By

    colour = "return getComputedStyle(document.body).backgroundColor"
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        opened.refresh()
        as_set = opened.execute_script(colour)
        assert as_set == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 21, 26)"}[scheme]
        opened.find_element(By.CSS_SELECTOR, "button.theme").click()
        assert opened.execute_script(colour) != as_set
        opened.find_element(By.CSS_SELECTOR, "button.theme").click()
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_hostile_texts_run_nothing(browser: Any, own_run: Path) -> None:
    taken = "document.title='taken'"
    hostile = f'<script>{taken}</script><img src=x onerror="{taken}">'
    path = own_run / "portrait.json"
    record = json.loads(path.read_text("utf-8"))
    for text in record["texts"]:
        text |= {"text": hostile, "title": hostile}
    for worst in record["worst"]:
        worst |= {"question": hostile, "hit_text": hostile}
    path.write_text(json.dumps(record), "utf-8")
    page = write_report(own_run)
    browser.get_log("browser")
    browser.get(page.as_uri())
    move_to(browser, 'svg.map [data-i="0"]')
    shown = tip(browser)
    assert shown is not None
    assert shown.startswith("<script>")
    assert browser.title == "clrelkt: tiny, seed 0"
    assert browser.execute_script("return document.images.length") == 0
    assert browser.get_log("browser") == []
