"""One site and one browser for all tests of this folder."""

import os
import shutil
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from site_scene import SiteScene


@pytest.fixture(scope="session")
def scene(tmp_path_factory) -> SiteScene:
    return SiteScene(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def site(scene) -> Path:
    return scene.build()


@pytest.fixture(scope="session")
def chromium():
    """Headless Chromium (Debian: chromium, chromium-driver). Continuous integration must have it."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        message = "chromium and chromedriver are not installed (apt-get install chromium chromium-driver)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    options = ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,900"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = Chrome(options=options, service=Service(driver))
    yield opened
    opened.quit()
