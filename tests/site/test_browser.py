"""The site as people meet it: opened from a file, in Chromium, with text of corpora that attacks."""

import json
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait
from site_scene import ATTACKS, DENSE, GROUP, HOSTILE, LABEL, N_LATENTS, SILENT

from atlas.site.pages import write_data

pytestmark = pytest.mark.slow

SAE = f"saes/{GROUP}/seed-0"


@pytest.fixture
def browser(chromium):
    """Ends with the check that every test wants: nothing on the console, nothing asked of any network."""
    for log in ("browser", "performance"):
        chromium.get_log(log)
    yield chromium
    assert chromium.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    asked = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    assert asked
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []


def go(browser, page: Path, fragment: str = "") -> None:
    browser.get("about:blank")
    browser.get(page.as_uri() + fragment)


def rows(browser) -> list[str]:
    """Labels of the rows in sight, in order, once the table is drawn: it draws at the next frame, all rows anew."""
    return browser.execute_async_script("""
        const read = () => [...document.querySelectorAll("#table .body .r")]
            .sort((a, b) => a.getBoundingClientRect().y - b.getBoundingClientRect().y)
            .map(row => row.querySelectorAll(".t")[2].innerText);
        requestAnimationFrame(() => requestAnimationFrame(() => arguments[0](read())));
    """)


def press(browser, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def until(browser, condition) -> None:
    WebDriverWait(browser, 60).until(lambda _: condition())


def test_from_the_first_page_to_a_latent_and_its_partner_and_back(browser, site):
    go(browser, site / "index.html")
    assert "duplicated" in browser.find_element(By.CSS_SELECTOR, ".saes tbody").text
    browser.find_element(By.CSS_SELECTOR, ".saes tbody th a").click()
    assert "50 % of its latents are copies (limit 25 %)" in browser.find_element(By.CSS_SELECTOR, ".why").text
    assert {"bad", "look"} & set(browser.find_element(By.ID, "dial-copies").get_attribute("class").split())
    assert len(rows(browser)) == N_LATENTS
    browser.find_elements(By.CSS_SELECTOR, "#table .body a")[HOSTILE].click()
    assert browser.current_url.endswith(f"seed-0/latents/{HOSTILE}.html")
    browser.find_element(By.PARTIAL_LINK_TEXT, "seed 1").click()
    assert browser.current_url.endswith(f"seed-1/latents/{N_LATENTS - 1 - HOSTILE}.html")
    browser.find_element(By.LINK_TEXT, "SAE Atlas").click()
    assert browser.current_url.endswith("index.html")


def test_text_of_a_corpus_and_of_a_label_is_shown_and_never_runs(browser, site):
    go(browser, site / SAE / f"latents/{HOSTILE}.html")
    body = browser.find_element(By.TAG_NAME, "main")
    assert browser.find_element(By.TAG_NAME, "h1").text == LABEL.replace("\u202e", "⟨U+202E⟩")
    for attack in (0, 1, 2, 4):
        assert ATTACKS[attack][:LENGTH_SHOWN] in body.text
    assert "⟨U+202E⟩⟨U+2066⟩abc⟨U+0000⟩⟨U+0007⟩⟨U+001B⟩[31m" in body.text
    assert "Grüße 你好" in body.text
    assert browser.execute_script("return typeof attacked") == "undefined"
    inside = "main script, main img, main [onclick], main [onerror], main [style], .tx h1"
    assert browser.find_elements(By.CSS_SELECTOR, inside) == []
    go(browser, site / SAE / "index.html")
    assert LABEL.replace("\u202e", "⟨U+202E⟩") in rows(browser)
    assert browser.execute_script("return typeof attacked") == "undefined"


def test_a_page_runs_no_script_of_its_own_and_asks_nobody(chromium, site, tmp_path):
    """What the checks of this file would see: an attack that was not escaped is blocked, and reported."""
    page = (site / SAE / f"latents/{SILENT}.html").read_text()
    attack = '<script>attacked = true</script><img src="http://127.0.0.1:9/x.png">'
    bad = site / SAE / "latents/attacked.html"
    bad.write_text(page.replace("</main>", f"{attack}</main>"))
    go(chromium, bad)
    bad.unlink()
    assert chromium.execute_script("return typeof attacked") == "undefined"
    assert sum("Content Security Policy" in entry["message"] for entry in chromium.get_log("browser")) >= 2


def test_hovering_a_token_shows_its_activation(browser, site):
    go(browser, site / SAE / f"latents/{HOSTILE}.html")
    token = browser.find_element(By.CSS_SELECTOR, ".tx i.p")
    shown = "return getComputedStyle(arguments[0], '::after').content"
    assert browser.execute_script(shown, token) == "none"
    ActionChains(browser).move_to_element(token).perform()
    assert browser.execute_script(shown, token) == f'"{token.get_attribute("data-8")}"'
    assert float(token.get_attribute("data-8")) == 20  # the last of the 20 tokens of an attack fires strongest


def test_search_filters_and_sorting(browser, site):
    go(browser, site / SAE / "index.html")
    assert len(rows(browser)) == N_LATENTS
    browser.find_element(By.ID, "search").send_keys("MEANING-1")
    assert rows(browser) == ["meaning-1", "meaning-10", "meaning-11"]
    browser.find_element(By.CSS_SELECTOR, "[data-key=score] button").click()
    assert rows(browser) == ["meaning-11", "meaning-10", "meaning-1"]
    assert browser.find_element(By.CSS_SELECTOR, "[data-key=score]").get_attribute("aria-sort") == "descending"
    assert browser.find_element(By.ID, "count").text == "3"
    browser.find_element(By.ID, "search").send_keys(Keys.ESCAPE)
    Select(browser.find_element(By.ID, "outcome")).select_by_value("noisy")
    assert rows(browser) == [f"meaning-{DENSE}"]


def test_a_search_that_finds_nothing_says_so_and_leads_back(browser, site):
    go(browser, site / SAE / "index.html")
    search = browser.find_element(By.ID, "search")
    search.send_keys("nobody<b>says this")
    until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#table .empty"))
    said = browser.find_element(By.CSS_SELECTOR, "#table .empty")
    assert said.text.startswith(f"None of {N_LATENTS} latents has the words “nobody<b>says this”.")
    assert said.is_displayed()
    browser.find_element(By.CSS_SELECTOR, "#table .empty button").click()
    until(browser, lambda: len(rows(browser)) == N_LATENTS)
    assert search.get_attribute("value") == ""


def test_what_is_not_known_comes_last_in_both_directions(browser, site):
    go(browser, site / SAE / "index.html", "#s=score&d=asc")
    first = rows(browser)
    browser.find_element(By.CSS_SELECTOR, "[data-key=score] button").click()
    second = rows(browser)
    assert first[-1] == second[-1] == ""  # the silent latent has neither label nor score
    assert first[:-1] == second[-2::-1]


def test_a_view_of_the_table_has_an_address(browser, site):
    go(browser, site / SAE / "index.html", "#o=good&q=meaning&min=0.55&s=score&d=desc")
    assert rows(browser) == [f"meaning-{number}" for number in range(11, 5, -1)]
    browser.find_element(By.ID, "search").clear()
    browser.find_element(By.ID, "search").send_keys("7")
    assert "q=7" in browser.current_url
    assert "o=good" in browser.current_url


def test_keys_lead_through_table_and_latents(browser, site):
    go(browser, site / SAE / "index.html")
    press(browser, "/", "meaning-7", Keys.ENTER, Keys.ENTER)
    until(browser, lambda: browser.current_url.endswith("latents/7.html"))
    press(browser, Keys.ARROW_RIGHT)
    until(browser, lambda: browser.current_url.endswith("latents/8.html"))
    press(browser, Keys.ARROW_LEFT)
    until(browser, lambda: browser.current_url.endswith("latents/7.html"))
    press(browser, "?")
    assert browser.find_element(By.TAG_NAME, "dialog").is_displayed()
    press(browser, Keys.ESCAPE, "u")
    until(browser, lambda: browser.current_url.endswith("index.html#latents"))


def test_a_dictionary_of_36000_latents_has_few_rows_in_the_page(browser, site):
    n = 36_000
    page, data = site / SAE / "index.html", site / SAE / "latents-data.js"
    original = data.read_text()
    values = json.loads(original.removeprefix("var atlasLatents=").removesuffix(";\n"))
    many = {
        key: (value * (n // N_LATENTS) if isinstance(value, list) and key != "outcomes" else value)
        for key, value in values.items()
    }
    many["density"] = [number / n for number in range(n)]
    write_data(data, "atlasLatents", many)
    try:
        go(browser, page, "#s=density&d=desc")
        assert browser.find_element(By.ID, "count").text == "36,000"
        assert 10 < len(browser.find_elements(By.CSS_SELECTOR, "#table .body .r")) < 60
        browser.execute_script("document.querySelector('#table').scrollTop = 1e9")
        until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#table a[href='latents/0.html']"))
        assert len(browser.find_elements(By.CSS_SELECTOR, "#table .body .r")) < 60
    finally:
        data.write_text(original)


@pytest.mark.parametrize("page", ["index.html", f"{SAE}/index.html", f"{SAE}/latents/{HOSTILE}.html"])
def test_no_page_is_wider_than_a_phone(browser, site, page):
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        go(browser, site / page)
        # A busy machine lays the page out once more after it was loaded.
        until(browser, lambda: browser.execute_script("return document.documentElement.scrollWidth") == 390)
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("page", ["index.html", f"{SAE}/index.html", f"{SAE}/latents/{HOSTILE}.html"])
def test_text_has_the_contrast_of_wcag_aa(browser, site, page):
    go(browser, site / page)
    found = browser.execute_script(CONTRAST)
    assert len(found) > 20
    assert [each for each in found if each["ratio"] < (3 if each["large"] else 4.5)] == []


LENGTH_SHOWN = 20
# Of every element with text of its own: the contrast of its colour against the nearest background behind it.
CONTRAST = """
const channels = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
const luminance = (rgb) => rgb.slice(0, 3).reduce((sum, v, i) => sum + linear(v / 255) * [.2126, .7152, .0722][i], 0);
return [...document.querySelectorAll("body *")].filter((element) => element.checkVisibility()
    && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())).map((element) => {
  const style = getComputedStyle(element), inSvg = element.namespaceURI.includes("svg");
  let behind = element, back = [255, 255, 255];
  for (; behind; behind = behind.parentElement) {
    const own = channels(getComputedStyle(behind).backgroundColor);
    if (own.length === 3 || own[3] > 0) { back = own; break; }
  }
  const [a, b] = [luminance(channels(inSvg ? style.fill : style.color)), luminance(back)].sort((x, y) => y - x);
  const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  return {text: element.textContent.slice(0, 30), ratio: (a + .05) / (b + .05), large, tag: element.tagName};
}).filter((each) => each.tag !== "title");
"""
