"""The page in a real browser, on a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from tests.server.conftest import DOCUMENTS, HOSTILE, Served, running
from tests.server.hostile import SCRIPTS

from clrelkt.reader import Reader
from clrelkt.search import Index
from clrelkt.server import ServerSettings

OpenBrowser = Callable[..., AbstractContextManager[Any]]

PENICILLIN = "¿Quién descubrió la penicilina?"
QUESTIONS = {
    "ar": ("متى تأسست جامعة هارفارد؟", "harvard", "rtl"),
    "th": ("ช้างกินอะไร", "elephant", "ltr"),
    "hi": ("फलों का राजा कौन है?", "mango", "ltr"),
    "zh": ("谁发现了氧气？", "oxygen", "ltr"),  # noqa: RUF001
    "en": ("Who discovered penicillin?", "fleming", "ltr"),
}


@pytest.fixture(scope="module")
def browser(open_browser: OpenBrowser) -> Iterator[Any]:
    with open_browser() as driver:
        driver.set_window_size(1100, 900)
        yield driver


@pytest.fixture
def page(browser: Any, served: Served) -> Page:
    """The page before anything was asked."""
    found = Page(browser, served.address)
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    found.open()
    return found


class Page:
    """What a person sees and does."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        self.address = address

    def open(self, **query: str) -> None:
        """Go to the page, with a question in its address or not."""
        self.browser.get(self.address + (f"?{urlencode(query)}" if query else ""))
        self.wait(lambda: self.text("#served"))
        if query:
            self.wait_for_hits()

    def wait(self, reached: Callable[[], object]) -> Any:
        """Wait until ``reached`` is true, and return what it is."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        ignored = (StaleElementReferenceException,)
        wait = WebDriverWait(self.browser, 20, 0.02, ignored_exceptions=ignored)
        return wait.until(lambda _: reached())

    def wait_for_hits(self) -> None:
        """Wait until the page is not searching."""
        idle = "return !document.querySelector('#results[aria-busy], .waiting')"
        self.wait(lambda: self.run(idle) and self.text("#results"))

    def run(self, script: str, *arguments: object) -> Any:
        """Run a script."""
        return self.browser.execute_script(script, *arguments)

    def find(self, selector: str) -> list[Any]:
        """Return elements."""
        from selenium.webdriver.common.by import By

        found: list[Any] = self.browser.find_elements(By.CSS_SELECTOR, selector)
        return found

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        script = "return document.querySelector(arguments[0])?.innerText ?? ''"
        return str(self.run(script, selector)).strip()

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(*keys).perform()

    def ask(self, question: str) -> None:
        """Type a question and press Enter."""
        from selenium.webdriver import Keys

        box = self.find("#question")[0]
        box.clear()
        box.send_keys(question, Keys.ENTER)
        self.wait(lambda: self.query.get("q") == [question])
        self.wait_for_hits()

    @property
    def query(self) -> dict[str, list[str]]:
        """What the address asks for."""
        return parse_qs(urlsplit(self.browser.current_url).query)

    @property
    def documents(self) -> list[str]:
        """The documents of the hits, in order."""
        links = self.find("a.title")
        return [parse_qs(urlsplit(a.get_attribute("href")).query)["document"][0] for a in links]

    @property
    def focused(self) -> str:
        """The id or text of what has the focus."""
        script = "const e = document.activeElement; return e.id || e.innerText"
        return str(self.run(script))

    def check_calm(self) -> None:
        """Nothing was logged, and nothing came from elsewhere."""
        assert self.browser.get_log("browser") == []
        asked = [json.loads(e["message"])["message"] for e in self.browser.get_log("performance")]
        addresses = [
            message["params"]["request"]["url"]
            for message in asked
            if message["method"] == "Network.requestWillBeSent"
        ]
        assert addresses
        assert [a for a in addresses if not a.startswith((self.address, "data:"))] == []


def test_it_says_what_is_there_to_be_asked(page: Page) -> None:
    assert page.text("h1") == "Ask in any language"
    assert page.focused == "question"
    page.wait(lambda: f"{len(DOCUMENTS)} documents" in page.text(".welcome"))
    assert "Alexander Fleming" in page.text(".titles")
    page.check_calm()


@pytest.mark.parametrize("language", QUESTIONS)
def test_a_question_in_any_script(page: Page, language: str) -> None:
    question, document, direction = QUESTIONS[language]
    page.ask(question)
    assert page.documents[0] == document
    box = page.find("#question")[0]
    assert page.run("return getComputedStyle(arguments[0]).direction", box) == direction
    first = page.find(".hit .text")[0]
    assert first.get_attribute("lang") == language
    assert page.run("return getComputedStyle(arguments[0]).direction", first) == direction
    assert page.text(".hit mark")
    assert page.run("return document.title") == f"{question} – clrelkt"  # noqa: RUF001
    page.check_calm()


def test_a_hit_shows_title_sentence_score_language_and_data(page: Page, index: Index) -> None:
    page.ask(PENICILLIN)
    (first, *_) = index.search(PENICILLIN, by="document")
    assert page.text("a.title") == "Alexander Fleming"
    assert page.text(".hit mark") == "He discovered penicillin in 1928."
    assert page.text(".hit .text") == first.text
    assert page.text(".hit .score").split()[-1] == f"{first.score:.3f}"
    assert page.text(".hit .about").startswith("English")
    assert page.text(".hit .data").replace("\n", " ") == "year 1928 field medicine"
    assert page.text("#status").startswith(f"{len(DOCUMENTS)} documents")


def test_the_address_can_be_shared_and_gone_back_to(page: Page) -> None:
    page.ask(PENICILLIN)
    first = page.documents
    page.ask(QUESTIONS["th"][0])
    second = page.documents
    assert first != second
    page.browser.back()
    page.wait(lambda: page.documents == first)
    assert page.find("#question")[0].get_property("value") == PENICILLIN
    page.browser.forward()
    page.wait(lambda: page.documents == second)
    shared = page.browser.current_url
    page.open()
    page.browser.get(shared)
    page.wait(lambda: page.documents == second)
    page.browser.back()
    page.browser.back()
    page.check_calm()


def test_filters_are_in_the_address(page: Page) -> None:
    page.ask("bees")
    page.find("label[for=by-passage]")[0].click()
    page.wait(lambda: page.query.get("by") == ["passage"])
    page.wait(lambda: page.documents.count("bees") == 2)
    for code in ("de", "th"):
        page.find(f"label[for=language-{code}]")[0].click()
    page.wait(lambda: page.query.get("languages") == ["de,th"])
    page.wait(lambda: set(page.documents) == {"bridge", "elephant"})
    page.open(q="bees", by="passage", languages="de,th")
    assert set(page.documents) == {"bridge", "elephant"}
    checked = [e.get_property("value") for e in page.find("#languages input:checked")]
    assert sorted(checked) == ["de", "th"]


def test_more_hits_can_be_asked_for(page: Page) -> None:
    page.open(q="bees", k="3")
    assert len(page.documents) == 3
    page.find(".onward")[0].click()
    page.wait(lambda: len(page.documents) == len(DOCUMENTS))
    assert page.query["k"] == ["13"]


def test_it_is_used_without_a_mouse(page: Page) -> None:
    from selenium.webdriver import Keys

    page.run("document.activeElement.blur()")
    page.press("/")
    assert page.focused == "question"
    assert page.find("#question")[0].get_property("value") == ""
    page.press(PENICILLIN, Keys.ENTER)
    page.wait_for_hits()
    page.press(Keys.ARROW_DOWN)
    assert page.focused == "Alexander Fleming"
    page.press(Keys.ARROW_DOWN)
    assert page.focused != "Alexander Fleming"
    page.press(Keys.ARROW_UP)
    page.press(Keys.ENTER)
    page.wait(lambda: page.text("#reader-title") == "Alexander Fleming")
    assert page.query["document"] == ["fleming"]
    assert "penicillin" in page.text("#reader-text p.found")
    page.wait(lambda: page.focused == "reader-text")
    page.press(Keys.ESCAPE)
    page.wait(lambda: "document" not in page.query and not page.find("dialog[open]"))
    assert page.focused == "Alexander Fleming"
    page.press(Keys.ARROW_UP)
    assert page.focused == "question"
    page.press(Keys.ESCAPE)
    assert page.find("#question")[0].get_property("value") == ""
    page.check_calm()


def test_a_document_has_an_address_too(page: Page) -> None:
    page.ask(PENICILLIN)
    page.find("a.title")[0].click()
    page.wait(lambda: page.text("#reader-title") == "Alexander Fleming")
    shared = page.browser.current_url
    page.browser.back()
    page.wait(lambda: not page.find("dialog[open]"))
    page.browser.get(shared)
    page.wait(lambda: page.text("#reader-title") == "Alexander Fleming")
    page.find("#close")[0].click()
    page.wait(lambda: not page.find("dialog[open]"))
    assert page.documents[0] == "fleming"


def test_scripts_in_documents_are_text(page: Page) -> None:
    hostile = DOCUMENTS[6]
    page.ask("<b>Scripts</b> in a text")
    place = page.documents.index(hostile.id)
    assert page.find("a.title")[place].text == hostile.title
    hit = page.find(".hit .text")[place]
    assert page.run("return arguments[0].textContent", hit).split() == HOSTILE.split()
    assert page.find(".hit mark")[place].text.split()[0] in HOSTILE
    page.find("a.title")[place].click()
    page.wait(lambda: page.text("#reader-title") == hostile.title)
    assert page.run("return document.images.length + document.scripts.length") == 2
    assert page.run("return window.wasRun") is None
    page.check_calm()


def test_a_mark_is_where_the_sentence_is_behind_an_emoji(page: Page, index: Index) -> None:
    question = "They stay what they are"
    page.open(q=question)
    hits = index.search(question, by="document")
    for hit, text in zip(hits, page.find(".hit"), strict=True):
        (found,) = hit.highlights
        script = "return arguments[0].querySelector('mark').textContent"
        assert page.run(script, text) == hit.text[found.start : found.stop]


def test_scripts_in_questions_are_text(page: Page) -> None:
    run = "<img src=x onerror=window.wasRun=1><script>window.wasRun=1</script>"
    for question in (run, f'">{run}', "%00", *SCRIPTS):
        page.open(q=question)
        assert page.find("#question")[0].get_property("value") == question
        assert page.run("return window.wasRun") is None
        assert page.run("return document.images.length + document.scripts.length") == 2
    page.check_calm()


def test_nothing_found_is_told(page: Page) -> None:
    page.open(q="bees", languages="ro")
    assert "Nothing found" in page.text("#results")
    assert page.text("#status") == "Nothing found."
    assert "No document in Romanian" in page.text(".notice")
    page.find(".notice .onward")[0].click()
    page.wait(lambda: page.documents)
    assert "languages" not in page.query


def test_a_question_that_is_too_long_is_told(page: Page) -> None:
    page.run("document.getElementById('question').value = 'a'.repeat(1001)")
    page.find("#ask")[0].click()
    assert "1001 characters; at most 1000" in page.text("#problem")


def test_a_server_that_is_gone_is_told_and_can_be_asked_again(browser: Any, index: Index) -> None:
    with running(index) as served:
        page = Page(browser, served.address)
        page.open(q="bees")
        served.stop()
    page.ask("honey")
    assert "The server cannot be reached" in page.text("[role=alert]:not([hidden])")
    assert page.find(".notice .onward")[0].text == "Try again"
    browser.get_log("browser")  # It tells of the lost connection.


def test_what_the_server_refuses_is_told(browser: Any, index: Index) -> None:
    with running(index, ServerSettings(max_question=20)) as served:
        page = Page(browser, served.address)
        page.open(q="a question of more than twenty characters")
        assert "41 characters; at most 20 expected" in page.text(".notice")
    browser.get_log("browser")


def test_an_answer_is_shown(browser: Any, index: Index, toy_reader: Reader) -> None:
    with running(index, ServerSettings(read_hits=2), toy_reader) as served:
        hits = served.post({"question": PENICILLIN}).json["hits"]
        page = Page(browser, served.address)
        page.open(q=PENICILLIN)
        page.wait(lambda: page.find("#answer:not([hidden])"))
        best = max((h for h in hits if h["answer"]), key=lambda h: h["answer"]["probability"])
        assert page.text("#answer .said") == best["answer"]["text"]
        said = page.find(".hit")[best["rank"] - 1]
        script = "return [...arguments[0].querySelectorAll('mark.said')].map((m) => m.textContent)"
        assert "".join(page.run(script, said)) == best["answer"]["text"]


CONTRAST = """
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
function channels(colour) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
}
function luminance(colour) {
  const [r, g, b] = colour.map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function ground(element) {
  for (let e = element; e; e = e.parentElement) {
    const colour = channels(getComputedStyle(e).backgroundColor);
    if (colour[3] === 255) return colour;
  }
  return [255, 255, 255, 255];
}
const poor = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
let seen = 0;
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
  if (element.closest('.unseen, .skip, script, noscript')) continue;
  const [a, b] = [channels(getComputedStyle(element).color), ground(element)].map(luminance);
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  seen += 1;
  if (ratio < 4.5) poor.push([walker.currentNode.data.trim(), ratio]);
}
return [seen, poor];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page: Page, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        page.open(q=PENICILLIN)
        dark = page.run("return getComputedStyle(document.documentElement).colorScheme")
        assert dark == scheme
        seen, poor = page.run(CONTRAST)
        assert seen > 30
        assert poor == []
    finally:
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_colours_are_chosen_and_remembered(page: Page) -> None:
    button = page.find("#theme")[0]
    names = []
    for _ in range(3):
        button.click()
        names.append(page.text("#theme-name"))
    assert names == ["Light", "Dark", "Auto"]
    button.click()
    button.click()
    page.open()
    assert page.text("#theme-name") == "Dark"
    assert page.run("return getComputedStyle(document.documentElement).colorScheme") == "dark"
    page.find("#theme")[0].click()


def test_everything_has_a_name(page: Page) -> None:
    page.open(q=PENICILLIN)
    page.find("a.title")[0].click()
    page.wait(lambda: page.text("#reader-title") == "Alexander Fleming")
    tree = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    wanted = {"button", "link", "searchbox", "checkbox", "radio", "dialog", "group", "search"}
    nameless = [
        node["role"]["value"]
        for node in tree
        if not node.get("ignored")
        and node.get("role", {}).get("value") in wanted - {"search"}
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    page.find("#close")[0].click()
    page.wait(lambda: not page.find("dialog[open]"))
    roles = {
        node["role"]["value"]
        for node in page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
        if not node.get("ignored")
    }
    assert roles >= {"main", "banner", "contentinfo", "search", "searchbox", "status", "radio"}


@pytest.mark.parametrize("width", [320, 390, 768])
def test_it_fits_narrow_screens(page: Page, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for query in ({}, {"q": "bees", "by": "passage"}, {"q": "a", "document": "fleming"}):
            page.open(**query)
            assert page.run("return document.documentElement.scrollWidth") <= width
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_storage_it_works(page: Page) -> None:
    script = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('off') }})"
    added = page.browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": script}
    )
    try:
        page.open(q="bees")
        page.find("#theme")[0].click()
        assert page.text("#theme-name") == "Light"
    finally:
        page.browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    page.check_calm()
