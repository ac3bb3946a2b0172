"""A sheet for blind readers in Chromium: marks are kept, saved, scored, and nothing is sent."""

import json

import pytest
from selenium.webdriver.common.by import By
from site_scene import GROUP, HOOK, SiteScene

from atlas.blind_reading.items import ReadSae
from atlas.blind_reading.sheet import read_key, write_sheet
from atlas.config.reading import Reading

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sheet(tmp_path_factory):
    """A page with eight items, six of the SAE, and its key."""
    folder = tmp_path_factory.mktemp("sheet")
    (folder / "scene").mkdir()
    scene = SiteScene(folder / "scene")
    codes = (scene.codes_of(0), scene.codes_of(0, "random"))
    sae = ReadSae(f"{GROUP}/seed-0", scene.sae(0), HOOK, 0, scene.model, *codes)
    settings = Reading(latents=6, random_latents=2, contexts=4, window_tokens=20)
    write_sheet("sweep", [sae], settings, folder / "page.html", folder / "key.json")
    return folder / "page.html", read_key(folder / "key.json")


def click(browser, selector: str) -> None:
    browser.execute_script("arguments[0].click()", browser.find_element(By.CSS_SELECTOR, selector))


def message(browser) -> str:
    return browser.find_element(By.ID, "message").text


def mark(browser, number: int, vote: str) -> None:
    click(browser, f'input[name="vote-{number}"][value="{vote}"]')


def test_a_sheet_is_marked_kept_saved_and_scored(chromium, sheet, tmp_path):
    page, key = sheet
    for log in ("browser", "performance"):
        chromium.get_log(log)
    downloads = {"behavior": "allow", "downloadPath": str(tmp_path)}
    chromium.execute_cdp_cmd("Browser.setDownloadBehavior", downloads)
    chromium.get(page.as_uri())
    assert len(chromium.find_elements(By.CSS_SELECTOR, ".item")) == 8
    assert not chromium.execute_script("return Boolean(window.attacked)")
    click(chromium, "#score")
    assert "8 of 8 are not marked, first 1." in message(chromium)
    for item in key.items:
        mark(chromium, item.number, "clear" if item.dictionary == "sae" else "none")
    chromium.get(page.as_uri())  # marks are kept
    assert chromium.find_element(By.ID, "progress").text == "8 of 8 marked"
    click(chromium, "#save")
    assert message(chromium) == "Write your name at the top."
    chromium.find_element(By.ID, "reader").send_keys("ada")
    click(chromium, "#score")
    result = chromium.find_element(By.ID, "result").text
    assert "clear, dictionary random 0 of 2" in result and "clear, dictionary sae 6 of 6" in result
    first = chromium.find_element(By.CSS_SELECTOR, ".votes input")
    assert not first.is_enabled()
    other = {str(item.number): {"vote": "clear" if item.number % 2 else "none"} for item in key.items}
    files = {"ben": key.sheet_id, "stranger": "0" * 16}
    for reader, sheet_id in files.items():
        saved = {"study": "sweep", "sheet": sheet_id, "reader": reader, "votes": other}
        (tmp_path / f"{reader}.json").write_text(json.dumps(saved))
    chooser = chromium.find_element(By.ID, "other")
    chooser.send_keys(str(tmp_path / "stranger.json"))
    wait = "return new Promise(done => setTimeout(done, 200))"
    chromium.execute_script(wait)
    assert message(chromium) == "stranger.json is of another sheet."
    chooser.send_keys(str(tmp_path / "ben.json"))
    chromium.execute_script(wait)
    assert "Cohen's kappa with ben" in chromium.find_element(By.ID, "result").text
    assert chromium.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    assert asked and all(url.startswith(("file://", "data:")) for url in asked)
