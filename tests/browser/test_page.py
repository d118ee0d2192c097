"""What a reader does with the page: filter, sort, open, on a desktop, a phone, in the dark."""

from __future__ import annotations

import re
from typing import Any

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.conftest import PATIENCE_S, Made, requests, screen
from tests.browser.pages import ATTACK

TABLES = ("static-dynamic", "ranking", "latency", "memory", "outputs", "identical")


def table(browser: Chrome, name: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, f'[data-table="{name}"]')


def cells(browser: Chrome, name: str, column: str) -> list[str]:
    """What stands in a column, row by row."""
    script = """
    const section = document.querySelector(`[data-table="${arguments[0]}"]`);
    const names = [...section.querySelectorAll("thead th")].map((th) => th.textContent);
    const at = names.indexOf(arguments[1]);
    return [...section.querySelectorAll("tbody tr")].map((tr) => tr.children[at]?.textContent);
    """
    found: list[str] = browser.execute_script(script, name, column)
    return found


def tick(browser: Chrome, dimension: str, *values: str) -> None:
    """Open a filter, and tick these values of it, as a reader would."""
    block = browser.find_element(By.CSS_SELECTOR, f'.filter[data-dimension="{dimension}"]')
    block.find_element(By.TAG_NAME, "summary").click()
    for label in block.find_elements(By.TAG_NAME, "label"):
        if label.text.strip() in values:
            label.click()
    block.find_element(By.TAG_NAME, "summary").click()


def drawn(browser: Chrome, plot: str) -> str:
    """Show a plot, wait until it is drawn, and return its text."""
    figure = browser.find_element(By.CSS_SELECTOR, f'[data-plot="{plot}"]')
    browser.execute_script("arguments[0].scrollIntoView()", figure)
    WebDriverWait(browser, PATIENCE_S).until(lambda _: figure.find_elements(By.TAG_NAME, "svg"))
    text: str = browser.execute_script("return arguments[0].textContent", figure)
    return text


FILTERS = [
    ("framework", "jax", "implementation", r"jax/.*"),
    ("strategy", "static", "implementation", r".*/static"),
    ("cell", "gru", "cell", "gru"),
    ("seq_len", "50", "T", "50"),
    ("batch", "16", "B", "16"),
    ("layers", "2", "L", "2"),
    ("mode", "train", "mode", "train"),
    ("device", "gpu", "device", "gpu"),
]


@pytest.mark.parametrize(("dimension", "value", "column", "left"), FILTERS)
def test_a_filter_applies_to_every_table_and_to_the_plots(
    browser: Chrome, page: Made, dimension: str, value: str, column: str, left: str
) -> None:
    browser.get(page("plain"))
    before = cells(browser, "ranking", column)
    assert not all(re.fullmatch(left, text) for text in before)
    tick(browser, dimension, value)
    for name in ("ranking", "memory", "outputs"):
        found = cells(browser, name, column)
        assert found
        assert all(re.fullmatch(left, text) for text in found), name
    rows = browser.execute_script("return DATA.plots[0].spec && left(DATA.plots[0]).marks.length")
    assert 0 < rows < browser.execute_script("return DATA.plots[0].place.length")
    browser.find_element(By.CSS_SELECTOR, ".reset").click()
    WebDriverWait(browser, 5).until(lambda _: cells(browser, "ranking", column) == before)


def test_runs_can_be_chosen_where_there_are_several(browser: Chrome, page: Made) -> None:
    browser.get(page("two"))
    assert len(set(cells(browser, "ranking", "run"))) >= 1
    tick(browser, "run", "other")
    assert set(cells(browser, "ranking", "run")) == {"other"}
    links = [a.get_dom_attribute("href") for a in browser.find_elements(By.CSS_SELECTOR, "#runs a")]
    assert links == []  # these runs were never on a disk


def test_two_filters_go_together_and_nothing_that_is_left_is_said(
    browser: Chrome, page: Made
) -> None:
    browser.get(page("plain"))
    tick(browser, "framework", "jax")
    tick(browser, "strategy", "traced")
    body = table(browser, "ranking").find_element(By.TAG_NAME, "tbody")
    assert body.text == "No row is left by the filters."
    tick(browser, "strategy", "dynamic")
    assert set(cells(browser, "ranking", "implementation")) == {"jax/dynamic"}
    said = browser.find_element(By.CSS_SELECTOR, "#filters output").text
    assert re.fullmatch(r"[\d,]+ of [\d,]+ rows", said)


def leading(text: str) -> float | None:
    found = re.match(r"-?[\d,.]+(e[+-]?\d+)?", text)
    return float(found[0].replace(",", "")) if found and text != "-" else None


def known(texts: list[str]) -> list[float]:
    return [value for text in texts if (value := leading(text)) is not None]


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_a_column_of_intervals_is_sorted_by_value(browser: Chrome, page: Made, by: str) -> None:
    browser.get(page("plain"))
    tick(browser, "mode", "train")  # so that a table is one window
    tick(browser, "batch", "4")
    tick(browser, "device", "cpu")
    section = table(browser, "static-dynamic")
    before = cells(browser, "static-dynamic", "first result")
    head = next(
        th
        for th in section.find_elements(By.CSS_SELECTOR, "thead th")
        if th.text.startswith("first result")
    )
    button = head.find_element(By.TAG_NAME, "button")

    def press() -> list[str]:
        if by == "mouse":
            button.click()
        else:
            browser.execute_script("arguments[0].focus()", button)
            button.send_keys(Keys.ENTER)
        return cells(browser, "static-dynamic", "first result")

    up = press()
    assert head.get_attribute("aria-sort") == "ascending"
    assert known(up) == sorted(known(before))
    assert len(known(up)) > 10
    assert all(leading(text) is None for text in up[len(known(up)) :])  # what is no number is last
    down = press()
    assert head.get_attribute("aria-sort") == "descending"
    assert known(down) == sorted(known(before), reverse=True)
    assert press() == before
    assert head.get_attribute("aria-sort") is None


def test_words_are_sorted_as_words(browser: Chrome, page: Made) -> None:
    browser.get(page("plain"))
    section = table(browser, "ranking")
    for button in section.find_elements(By.CSS_SELECTOR, "thead button"):
        if button.text.startswith("implementation"):
            button.click()
    found = cells(browser, "ranking", "implementation")
    assert found == sorted(found)
    assert found[0] == "jax/dynamic"


def test_a_verdict_opens_to_its_evidence(browser: Chrome, page: Made) -> None:
    browser.get(page("plain"))
    first = browser.find_element(By.CSS_SELECTOR, ".claim")
    summary = first.find_element(By.TAG_NAME, "summary")
    assert "The dynamic one is as fast." in summary.text
    assert "refuted" in summary.text
    assert "there holds" in " ".join(summary.text.split())  # the other host, beside it
    browser.execute_script("arguments[0].focus()", summary)
    summary.send_keys(Keys.ENTER)
    text = first.text
    for said in ("at most 5 % slower", "LSTM", "T=50", "0.80 [0.78, 0.83]", "0.0004", "a note"):
        assert said in text
    arithmetic = first.find_element(By.CSS_SELECTOR, ".how summary")
    arithmetic.click()
    assert "0.8 is below 1" in first.text
    link = first.find_element(By.CSS_SELECTOR, "dd a")
    assert link.get_dom_attribute("href") == "https://example.org/claim"
    assert len(browser.find_elements(By.CSS_SELECTOR, ".claim")) == 2


def test_text_from_records_is_text(browser: Chrome, page: Made) -> None:
    browser.get(page("hostile"))
    for block in browser.find_elements(By.CSS_SELECTOR, ".claim, .warning, .filter"):
        browser.execute_script("arguments[0].open = true", block)
    for figure in browser.find_elements(By.TAG_NAME, "figure"):
        drawn(browser, str(figure.get_dom_attribute("data-plot")))
    for mark in browser.find_elements(By.CSS_SELECTOR, "svg path[aria-label]")[:5]:
        browser.execute_script(
            "arguments[0].dispatchEvent(new MouseEvent('mousemove', {bubbles: true}))", mark
        )
    assert browser.execute_script("return window.attacked") is None
    assert browser.execute_script("return document.scripts.length") == 3
    assert browser.find_elements(By.CSS_SELECTOR, "img, svg svg svg[onload]") == []
    assert browser.find_elements(By.CSS_SELECTOR, 'a[href^="javascript"]') == []
    body: str = browser.execute_script("return document.body.textContent")
    shown = " ".join(ATTACK.split())
    for where in ("h1", "dd", ".claim .sentence", ".reasons pre", "td", "label"):
        texts: list[str] = browser.execute_script(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)", where
        )
        assert any("<script>window.attacked=1</script>" in text for text in texts), where
    assert shown[:60] in " ".join(body.split())


def test_every_plot_is_drawn_and_has_its_data_and_words(browser: Chrome, page: Made) -> None:
    browser.get(page("plain"))
    names = browser.execute_script("return DATA.plots.map((plot) => plot.title)")
    assert names == [
        *("latency", "static-dynamic", "first-result", "build", "memory"),
        *("limit-share", "launch-share"),
    ]
    for name in names:
        text = drawn(browser, name)
        assert "not drawn" not in text
        figure = browser.find_element(By.CSS_SELECTOR, f'[data-plot="{name}"]')
        words = figure.find_element(By.CSS_SELECTOR, "[role=img]").get_attribute("aria-label")
        assert words
        assert len(words) > 40
        hrefs = [a.get_dom_attribute("href") for a in figure.find_elements(By.TAG_NAME, "a")]
        assert hrefs[0].endswith(".csv")
        assert hrefs[1:] == [f"plots/{name}.svg", f"plots/{name}.png"]
        panels = 16 if name == "launch-share" else 32  # those of a GPU alone
        assert f"6 of {panels} panels" in text


def test_a_phone_has_no_page_to_scroll_sideways(browser: Chrome, page: Made) -> None:
    screen(browser, 390, 800)
    browser.get(page("plain"))
    for block in browser.find_elements(By.CSS_SELECTOR, "details"):
        browser.execute_script("arguments[0].open = true", block)
    for name in ("latency", "static-dynamic"):
        drawn(browser, name)
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= 390
    inner = table(browser, "latency").find_element(By.CSS_SELECTOR, ".scroll")
    assert browser.execute_script(
        "return arguments[0].scrollWidth > arguments[0].clientWidth", inner
    )


CONTRASTS = """
function parse(text) { return text.match(/[\\d.]+/g).map(Number); }
function luminance([r, g, b]) {
  const [x, y, z] = [r, g, b].map((v) => {
    v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}
function behind(element) {
  for (let e = element; e; e = e.parentElement) {
    const found = parse(getComputedStyle(e).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found;
  }
  return [255, 255, 255];
}
return [...document.querySelectorAll(arguments[0])]
  .filter((element) => element.checkVisibility() && element.textContent.trim())
  .map((element) => {
    const [a, b] = [parse(getComputedStyle(element).color), behind(element)].map(luminance);
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.textContent.slice(0, 40)];
  });
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_daylight_and_in_the_dark(
    browser: Chrome, page: Made, scheme: str
) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.get(page("plain"))
    browser.execute_script("document.querySelectorAll('.claim').forEach((d) => { d.open = true; })")
    drawn(browser, "latency")
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is (scheme == "light")
    found: list[Any] = browser.execute_script(
        CONTRASTS, "h1, h2, p, a, dt, dd, td, th, summary, .answer, .warning, button:enabled"
    )
    assert len(found) > 100
    assert [(round(ratio, 1), text) for ratio, text in found if ratio < 4.5] == []


def test_everything_can_be_reached_by_keyboard(browser: Chrome, page: Made) -> None:
    browser.get(page("plain"))
    reached = set()
    for _ in range(60):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        active = browser.switch_to.active_element
        reached.add(active.tag_name)
        outline = browser.execute_script(
            "return getComputedStyle(arguments[0]).outlineStyle", active
        )
        assert outline != "none", active.get_attribute("outerHTML")
    assert {"a", "summary", "button"} <= reached


def test_nothing_is_asked_of_a_network(browser: Chrome, page: Made) -> None:
    browser.get(page("plain"))
    drawn(browser, "latency")
    assert {address.split(":")[0] for address in requests(browser)} <= {"file", "data"}
    refused = browser.execute_async_script("""
    const done = arguments[0];
    fetch("https://example.org/").then(() => done("answered"), () => done("refused"));
    """)
    assert refused == "refused"
    said = [line["message"] for line in browser.get_log("browser")]
    assert any("Content Security Policy" in line for line in said)


def test_a_hundred_thousand_records_open_and_answer(browser: Chrome, page: Made) -> None:
    browser.get(page("large"))
    section = table(browser, "latency")
    assert "rows 1 to 100 of 10,000" in section.find_element(By.CSS_SELECTOR, ".pager").text
    assert len(cells(browser, "latency", "T")) == 100
    tick(browser, "framework", "jax")
    tick(browser, "cell", "gru")
    assert "of 600 that are left of 10,000" in section.find_element(By.CSS_SELECTOR, ".pager").text
    assert {text.split("/")[0] for text in cells(browser, "ranking", "implementation")} == {"jax"}
    last = cells(browser, "latency", "T")
    section.find_elements(By.CSS_SELECTOR, ".pager button")[1].click()
    assert cells(browser, "latency", "T") != last
    assert "not drawn" not in drawn(browser, "latency")
