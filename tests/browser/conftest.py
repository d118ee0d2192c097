"""A headless Chromium without a network, and pages for it to open."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from bench import report as reports
from bench.report import Report
from bench.store import read_run
from tests import synthetic, synthetic_large
from tests.browser.pages import hostile_report, verdicts

#: Nothing may wait longer than this for the page.
PATIENCE_S = 20

INSTALL = "apt-get install --no-install-recommends chromium chromium-driver"


@pytest.fixture(scope="session")
def driver() -> Iterator[webdriver.Chrome]:
    """One browser for all tests; each opens its own page."""
    programs = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if None in programs.values():
        pytest.fail(f"chromium and chromedriver are needed: {INSTALL}", pytrace=False)
    options = webdriver.ChromeOptions()
    options.binary_location = str(programs["chromium"])
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options, Service(str(programs["chromedriver"])))
    chrome.set_page_load_timeout(PATIENCE_S)
    chrome.set_script_timeout(PATIENCE_S)
    yield chrome
    chrome.quit()


@pytest.fixture
def browser(driver: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """The browser as of a desktop in daylight; afterwards nothing was refused or asked for."""
    screen(driver, 1280, 900)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    for kind in ("browser", "performance"):
        driver.get_log(kind)
    yield driver
    assert [line["message"] for line in driver.get_log("browser")] == []
    asked = [request for request in requests(driver) if not request.startswith(("file:", "data:"))]
    assert asked == []


def screen(driver: webdriver.Chrome, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def requests(driver: webdriver.Chrome) -> list[str]:
    """The address of everything that was asked for since the last look."""
    messages = [json.loads(line["message"])["message"] for line in driver.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker("draws")


Made = Callable[[str], str]


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The address of a page by name; each is made once."""
    known: dict[str, str] = {}
    makers: dict[str, Callable[[Path], Report]] = {
        "plain": lambda folder: replace(_plain(), verdicts=verdicts()),
        "hostile": lambda folder: hostile_report(),
        "two": lambda folder: reports.build(
            [synthetic.run(_varied()), synthetic.run(_varied(), seed=3, id="other")]
        ),
        "large": _large,
    }

    def made(name: str) -> str:
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            reports.write(makers[name](folder), folder / "page")
            known[name] = (folder / "page" / "index.html").as_uri()
        return known[name]

    return made


def _plain() -> Report:
    return reports.build([synthetic.run(_varied())])


def _varied() -> Any:
    """A sweep in which everything that can be filtered varies, but the run."""
    plan = synthetic.sweep(blocks=3)
    axes = replace(plan.axes, cell=("lstm", "gru"), batch=(4, 16), layers=(1, 2))
    axes = replace(axes, device=("cpu", "gpu"))
    return replace(plan, axes=axes)


def _large(folder: Path) -> Report:
    synthetic_large.write(folder / "run")
    return reports.build([read_run(folder / "run")])
