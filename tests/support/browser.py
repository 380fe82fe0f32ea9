"""A headless Chromium that clicks and types as a person does, and keeps pictures of the pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WIDTH, HEIGHT = 1400, 900
WAIT_S = 90
COLOURS = 128
"""Palette of a saved picture: a page stays readable and far below 200 kB."""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--window-size={WIDTH},{HEIGHT}",
)


def chromium() -> tuple[str, str]:
    """Return the paths of Chromium and its driver; the test skips, saying so, without them."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if None in found:
        pytest.skip("no browser: install the packages chromium and chromium-driver")
    return str(found[0]), str(found[1])


class Page:
    """The browser's one tab."""

    def __init__(self, driver: Any, pictures: Path) -> None:
        self.driver = driver
        self.pictures = pictures

    def open(self, url: str) -> None:
        """Go to an address."""
        self.driver.get(url)

    @property
    def url(self) -> str:
        """The address in the address bar."""
        return str(self.driver.current_url)

    @property
    def text(self) -> str:
        """What a person can read on the page now."""
        return str(self.driver.execute_script("return document.body.innerText"))

    def until(self, condition: Callable[[], Any], what: str, limit_s: float = WAIT_S) -> Any:
        """Wait until the condition returns something; elements come and go meanwhile."""
        from selenium.common.exceptions import (
            ElementClickInterceptedException,
            ElementNotInteractableException,
            NoSuchElementException,
            StaleElementReferenceException,
            TimeoutException,
        )
        from selenium.webdriver.support.wait import WebDriverWait

        passing = (
            ElementClickInterceptedException,
            ElementNotInteractableException,
            NoSuchElementException,
            StaleElementReferenceException,
        )
        wait = WebDriverWait(self.driver, limit_s, poll_frequency=0.3, ignored_exceptions=passing)
        try:
            return wait.until(lambda _: condition())
        except TimeoutException:
            self.picture("failed")
            pytest.fail(
                f"not within {limit_s} s at {self.url}: {what}; the page reads:\n{self.text}"
            )

    def see(self, *texts: str, limit_s: float = WAIT_S) -> str:
        """Wait until the page shows all the texts; returns what it reads."""
        self.until(lambda: all(text in self.text for text in texts), f"{texts}", limit_s)
        return self.text

    def click(self, xpath: str, limit_s: float = WAIT_S) -> None:
        """Click the first match as soon as it can be clicked."""

        def done() -> bool:
            self.driver.find_element("xpath", xpath).click()
            return True

        self.until(done, f"click {xpath}", limit_s)

    def press(self, text: str, limit_s: float = WAIT_S) -> None:
        """Click the link, button or tab that reads ``text``."""
        kinds = "self::a or self::button or self::label or @role='tab' or @role='radio'"
        self.click(f"//*[{kinds}][normalize-space()='{text}']", limit_s)

    def keys(self, *keys: str) -> None:
        """Type into what has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def show(self, xpath: str) -> None:
        """Scroll an element to the top of the page."""
        element = self.driver.find_element("xpath", xpath)
        self.driver.execute_script("arguments[0].scrollIntoView(true)", element)
        # Tables that scroll by themselves would hide the beginning of their figures.
        self.driver.execute_script(
            "document.querySelectorAll('*').forEach(e => { if (e.scrollLeft) e.scrollLeft = 0 })"
        )

    def all(self, css: str) -> list[Any]:
        """Return the elements of a CSS selector."""
        return list(self.driver.find_elements("css selector", css))

    def picture(self, name: str) -> Path:
        """Save what the browser shows, in a palette of few colours."""
        import io

        from PIL import Image

        self.pictures.mkdir(parents=True, exist_ok=True)
        target = self.pictures / f"{name}.png"
        with Image.open(io.BytesIO(self.driver.get_screenshot_as_png())) as shown:
            shown.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(
                target, optimize=True
            )
        return target


@contextmanager
def browser(profile: Path, pictures: Path) -> Iterator[Page]:
    """Run Chromium with a fresh profile; nothing is downloaded, nothing is reported."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    program, driver_program = chromium()
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    # The driver is given by its path: Selenium's own search would go to the network.
    environment = {**os.environ, "SE_OFFLINE": "true", "SE_AVOID_STATS": "true"}
    driver = webdriver.Chrome(options=options, service=Service(driver_program, env=environment))
    try:
        # The window's size includes a frame; the page's own is what a picture shows.
        size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield Page(driver, pictures)
    finally:
        driver.quit()
