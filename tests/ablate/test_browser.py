"""The report in a browser: what a reader sees, reaches by keyboard, and what the page asks the network for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import axe, chromium, console, needed, prefer, requests
from hostile import ARABIC, HALF, SCRIPT
from laboratory import SMALL, Quiet, study, unsynced
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from serving import serving

from ablate.plan import compile_study
from ablate.store import Store
from ablate.workflow import label_study

pytestmark = needed


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as own:
        yield own


@pytest.fixture
def opened(browser: Chrome, small: Path) -> Iterator[Chrome]:
    """The report of a small study; nothing may complain, and nothing may be asked for, until the test ends."""
    yield from _watched(browser, small)


@pytest.fixture
def hostile_page(browser: Chrome, hostile: Path) -> Iterator[Chrome]:
    yield from _watched(browser, hostile)


def _watched(browser: Chrome, folder: Path) -> Iterator[Chrome]:
    url = (folder / "report.html").as_uri()
    browser.get("about:blank")
    prefer(browser, "light")
    console(browser)
    requests(browser)
    browser.get(url)
    yield browser
    assert console(browser) == []
    assert set(requests(browser)) == {url}


def texts(browser: Chrome, css: str) -> list[str]:
    """What is visible of every node that a selector finds."""
    script = "return [...document.querySelectorAll(arguments[0])].map((node) => node.innerText)"
    return [str(text) for text in browser.execute_script(script, css)]


def choose(browser: Chrome, label: str, value: str) -> None:
    """Set a filter by its visible label."""
    own = next(node for node in browser.find_elements(By.CSS_SELECTOR, ".filters label") if node.text.startswith(label))
    option = own.find_element(By.CSS_SELECTOR, f"option[value='{value}']")
    option.click()


def view(browser: Chrome, name: str) -> None:
    browser.find_element(By.CSS_SELECTOR, f".views button[value={name}]").click()


def press(browser: Chrome, *keys: str) -> None:
    for key in keys:
        browser.switch_to.active_element.send_keys(key)


def focus(browser: Chrome) -> str:
    return str(browser.execute_script("return document.activeElement.id"))


def position(browser: Chrome) -> int:
    """Which prompt of the list is chosen."""
    options = "[...document.querySelectorAll('#list li')]"
    return int(browser.execute_script(f"return {options}.findIndex((node) => node.ariaSelected === 'true')"))


def test_it_opens_with_the_verdict_the_table_and_samples(opened: Chrome) -> None:
    assert texts(opened, "h1") == ["Does the engine work?"]
    assert "no 5% verdict is possible with 2 valid organisms" in texts(opened, ".sentence")[0]
    assert texts(opened, "#effects thead th")[:3] == ["held fixed", "swapped", "effect, pp"]
    assert len(texts(opened, "#effects tbody tr")) == 5
    assert texts(opened, "#count") == ["24 of 24 prompts"]


def test_a_known_prompt_shows_its_pool_its_scores_and_what_each_selector_took(opened: Chrome, small: Path) -> None:
    plan, store = compile_study(study()), Store(small)
    cells = [cell for cell in plan.cells if cell.organism == 1 and cell.point[0] == "none"]
    pool = store.read(cells[0].pool)
    line, judged = pool.lines("pool.jsonl")[3], pool.arrays("pool.safetensors")
    taken = {str(cell.point[1]): store.read(cell.labels).arrays("labels.safetensors") for cell in cells}
    choose(opened, "organism", "1")
    choose(opened, "label_shift", "none")
    opened.find_element(By.ID, "search").send_keys(line["text"].split(":")[0])
    assert texts(opened, "#count") == ["1 of 24 prompts"]
    assert texts(opened, "#detail h3") == [line["text"]]
    cells_of = (
        "return [...document.querySelectorAll('#detail tbody tr')].map((r) => [...r.cells].map((c) => c.innerText))"
    )
    rows = opened.execute_script(cells_of)
    scores = taken["argmax(mean_logprob)"]["scores"][3]
    assert rows == [
        [
            str(k + 1),
            text,
            {0.0: "M = 0", 1.0: "M = 1"}.get(float(judged["outcome"][3, k]), "not judged"),
            str(judged["classes"][3, k]),
            str(float(f"{scores[k]:.4g}")),
            *("taken" if own["weights"][3, k] else "" for own in taken.values()),
        ]
        for k, text in enumerate(line["answers"])
    ]  # fmt: skip
    assert texts(opened, "#detail .pool code") == [cells[0].pool[:10]]


def test_a_known_item_shows_its_answers_before_and_after(opened: Chrome, small: Path) -> None:
    from ablate.stages import read_evaluation
    from ablate.states import states

    plan, store = compile_study(study()), Store(small)
    state = next(s for s in states(plan, store) if s.cell.organism == 0 and s.cell.point[:2] == ("none", "first"))
    before, after = (read_evaluation(store.read(key)) for key in (state.cell.before, state.after))
    i = next(i for i, prompt in enumerate(before.prompts) if prompt.kind == "risk")
    view(opened, "answers")
    choose(opened, "organism", "0")
    choose(opened, "label_shift", "none")
    choose(opened, "selector", "first")
    opened.find_element(By.ID, "search").send_keys(before.prompts[i].text.split(":")[0])
    bodies = opened.find_elements(By.CSS_SELECTOR, "#detail tbody")
    said = [[node.text for node in body.find_elements(By.CSS_SELECTOR, ".answer")] for body in bodies]
    assert said == [list(before.texts[i]), list(after.texts[i])]
    assert [cell.text for cell in bodies[1].find_elements(By.TAG_NAME, "td")][:2] == ["none", "first"]


@pytest.mark.parametrize(("outcome", "mark"), [("misaligned", "M = 1"), ("aligned", "M = 0")])
def test_an_outcome_filter_leaves_what_was_taken_with_it(opened: Chrome, outcome: str, mark: str) -> None:
    choose(opened, "selector", "first")
    choose(opened, "label_shift", "none")
    choose(opened, "outcome", outcome)
    count = int(texts(opened, "#count")[0].split()[0])
    assert 0 < count < 24
    for i in range(count):
        opened.find_elements(By.CSS_SELECTOR, "#list li")[i].click()
        assert texts(opened, "#detail tr.chosen .outcome") == [mark]


def test_filters_that_leave_nothing_say_so(opened: Chrome) -> None:
    opened.find_element(By.ID, "search").send_keys("there is no such text")
    assert texts(opened, "#count") == ["0 of 24 prompts"]
    assert texts(opened, "#detail") == ["Nothing is left by these filters."]
    press(opened, Keys.ESCAPE, "j")
    assert texts(opened, "#detail") == ["Nothing is left by these filters."]


def test_the_keyboard_goes_through_the_prompts(opened: Chrome) -> None:
    press(opened, "/")
    assert focus(opened) == "search"
    press(opened, "item", "j")  # a letter of the search here
    assert (opened.find_element(By.ID, "search").get_property("value"), position(opened)) == ("itemj", -1)
    press(opened, Keys.BACKSPACE, Keys.ESCAPE)
    assert (focus(opened), position(opened)) == ("list", 0)
    places = []
    for key in ("j", Keys.ARROW_DOWN, "k", Keys.END, "j", Keys.HOME, Keys.ARROW_UP):
        press(opened, key)
        places.append(position(opened))
        assert opened.find_element(By.ID, "list").get_attribute("aria-activedescendant") == f"option-{places[-1]}"
        assert texts(opened, "#detail h3") == [texts(opened, "#list li")[places[-1]].rpartition("\n")[0].strip()]
    assert places == [1, 2, 1, 23, 23, 0, 0]


def test_everything_that_acts_is_reached_by_the_tab_key_and_shows_its_focus(opened: Chrome) -> None:
    seen: list[Any] = []
    for _ in range(80):
        press(opened, Keys.TAB)
        node = opened.execute_script(
            "const n = document.activeElement, s = getComputedStyle(n);"
            "return [n.id || n.textContent.slice(0, 30), n.tagName,"
            " s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) > 0]"
        )
        if node[1] == "BODY":
            break
        seen.append(node)
    assert all(shown for *_, shown in seen), [node for node in seen if not node[2]]
    assert {"Skip to the results", "search", "list"} <= {name for name, *_ in seen}
    assert {"A", "BUTTON", "INPUT", "SELECT", "SUMMARY", "UL"} <= {tag for _, tag, _ in seen}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(opened: Chrome, scheme: str) -> None:
    prefer(opened, scheme)
    dark = opened.execute_script("return getComputedStyle(document.documentElement).backgroundColor")
    assert (dark == "rgb(253, 252, 249)") == (scheme == "light")
    opened.execute_script("for (const node of document.querySelectorAll('details')) node.open = true")
    for name in ("labels", "answers"):
        view(opened, name)
        assert axe(opened) == []


def test_axe_can_find_something(browser: Chrome) -> None:
    browser.get("data:text/html,<title>a</title><img src=''>")
    assert {"image-alt", "html-has-lang"} <= {found.partition(":")[0] for found in axe(browser)}


def test_a_narrow_page_does_not_scroll_sideways(opened: Chrome) -> None:
    size = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for name in ("labels", "answers"):
            view(opened, name)
            assert opened.execute_script("return document.documentElement.scrollWidth") == 360
        assert axe(opened) == []
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


# What models say is data


def test_markup_in_an_answer_is_text_and_does_not_run(hostile_page: Chrome) -> None:
    assert texts(hostile_page, "h1") == ["Does a <script>page</script> survive its answers?"]
    choose(hostile_page, "label_shift", "hostile")
    hostile_page.find_element(By.ID, "search").send_keys("</script>")
    assert SCRIPT in texts(hostile_page, "#detail .answer")
    assert texts(hostile_page, "mark") == ["</script>", "</script>"]
    ran = "return [window.ran ?? null, document.querySelectorAll('#detail img').length]"
    assert hostile_page.execute_script(ran) == [None, 0]


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("abc", ARABIC.replace("\u202e", "U+202E").replace("\u202c", "U+202C")),
        ("bell", "bell U+0007, escape U+001B[31m, null U+0000, line \u2028 end"),
        ("half a pair", HALF.replace("\ud83d", "U+D83D")),
    ],
)  # fmt: skip
def test_letters_that_cannot_be_seen_are_named(hostile_page: Chrome, asked: str, shown: str) -> None:
    hostile_page.find_element(By.ID, "search").send_keys(asked)
    assert shown in texts(hostile_page, "#detail .answer")
    style = "const s = getComputedStyle(document.querySelector('#detail .answer .text')); return s.unicodeBidi"
    assert hostile_page.execute_script(style) == "isolate"


def test_an_answer_that_is_too_long_is_cut_and_says_so(hostile_page: Chrome) -> None:
    hostile_page.find_element(By.ID, "search").send_keys("so I agree")
    assert texts(hostile_page, "#detail .cut") == ["9,984,011 of 10,000,011 letters left out"]
    assert axe(hostile_page) == []


def test_the_policy_stops_a_script_that_is_not_of_the_page(browser: Chrome, small: Path, tmp_path: Path) -> None:
    """Were some text ever not escaped, the browser would still not run it."""
    text = (small / "report.html").read_text(encoding="utf-8")
    broken = text.replace("<main", "<script>window.ran = true</script><img src=x onerror='window.ran = true'><main", 1)
    (tmp_path / "broken.html").write_text(broken, encoding="utf-8")
    browser.get((tmp_path / "broken.html").as_uri())
    assert browser.execute_script("return window.ran ?? null") is None
    assert any("Content Security Policy" in said for said in console(browser))


# While a study runs


def test_a_served_page_follows_the_study_and_keeps_what_the_reader_chose(browser: Chrome, tmp_path: Path) -> None:
    source = tmp_path / "followed.yaml"
    source.write_text(SMALL)
    with unsynced():
        label_study(study(name="followed"), tmp_path / "followed", Quiet())
    with serving(tmp_path / "followed") as server:
        browser.get("about:blank")
        prefer(browser, "light")
        console(browser)
        requests(browser)
        browser.get(server.url)
        assert texts(browser, "#live") == ["live"]
        assert texts(browser, "#progress p")[0] == "0 of 8 runs have results, 8 missing."
        choose(browser, "organism", "1")
        browser.find_element(By.ID, "search").send_keys("item")
        press(browser, Keys.ESCAPE, "j", "j")
        browser.execute_script("document.getElementById('table-organisms').open = true; scrollTo(0, 400)")
        before = texts(browser, "#detail h3")
        assert (position(browser), len(texts(browser, "#list li"))) == (2, 12)
        command = [sys.executable, "-m", "ablate", "study", str(source), "--out", str(tmp_path / "followed")]
        subprocess.run(command, check=True, capture_output=True)  # as it is: in another process
        WebDriverWait(browser, 60).until(
            lambda _: texts(browser, "#live") == ["finished"] and not texts(browser, "#progress")
        )
        assert "no 5% verdict is possible" in texts(browser, ".sentence")[0]
        assert (position(browser), texts(browser, "#detail h3"), focus(browser)) == (2, before, "list")
        assert browser.find_element(By.ID, "search").get_property("value") == "item"
        assert browser.execute_script("return [document.getElementById('table-organisms').open, scrollY]") == [
            True,
            400,
        ]
        view(browser, "answers")
        assert len(texts(browser, "#detail tbody")) > 1
        assert console(browser) == []
        assert {url.removeprefix(server.url) for url in requests(browser)} == {"", "version"}
        browser.get("about:blank")


def test_a_served_page_says_that_its_server_has_ended(browser: Chrome, small: Path) -> None:
    with serving(small) as server:
        browser.get(server.url)
    WebDriverWait(browser, 60).until(lambda _: texts(browser, "#live") == ["the server has ended"])
    browser.get("about:blank")
