"""The page of the service, used in a browser: typed texts, a csv file, why, a download, a token, errors."""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from sentiment_hybrid.config.schema import Serve
from sentiment_hybrid.serving.app import Service
from sentiment_hybrid.serving.model import ServedModel
from sentiment_hybrid.serving.server import address_of, bind

HOSTILE = "<img src=x onerror=document.title='owned'> <b>bold</b> awful"
TOKEN = "0123456789abcdef"


@pytest.fixture(scope="module")
def services(mini: ServedModel) -> Iterator[dict[str, str]]:
    """URLs of a service without a token and of one with a token."""
    urls, stops = {}, []
    for name, token in (("open", None), ("closed", TOKEN)):
        settings = Serve(port=0)
        service = Service(mini, settings, token=token)
        service.batcher.start()
        bound = bind(settings)
        bound.listen()
        server = uvicorn.Server(uvicorn.Config(service.application, log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        urls[name] = address_of(bound)
        stops.append((server, thread, service))
    yield urls
    for server, thread, service in stops:
        server.should_exit = True
        thread.join(20)
        service.batcher.close()


@pytest.fixture
def page(browser: Any, services: dict[str, str]) -> Any:
    """The page of the open service, with its model loaded."""
    browser.get(services["open"])
    until(browser, lambda: "negative" in text(browser, "about"))
    return browser


def until(browser: Any, holds: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 20, poll_frequency=0.02).until(lambda _: holds())


def find(page: Any, id_: str) -> Any:
    return page.find_element("id", id_)


def text(page: Any, id_: str) -> str:
    return str(find(page, id_).text)


def cells(page: Any) -> list[list[str]]:
    script = "return [...document.querySelectorAll('#rows tr')].map(r => [...r.cells].map(c => c.textContent))"
    return page.execute_script(script)  # type: ignore[no-any-return]


def test_typed_texts_are_labelled_and_explained_by_keyboard_alone(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    page.switch_to.active_element.send_keys(Keys.TAB)
    page.switch_to.active_element.send_keys(
        "not bad at all :)", Keys.ENTER, HOSTILE, Keys.ENTER, Keys.CONTROL + Keys.ENTER + Keys.NULL
    )
    until(page, lambda: text(page, "status") == "2 texts labelled")
    rows = cells(page)
    assert [(row[0], row[1]) for row in rows] == [("not bad at all :)", "positive"), (HOSTILE, "negative")]
    assert all(row[2].strip().endswith("%") for row in rows)
    buttons = page.find_elements("css selector", "#rows button")
    buttons[0].send_keys(Keys.ENTER)
    until(page, lambda: buttons[0].get_attribute("aria-expanded") == "true")
    marks = page.find_elements("css selector", "tr.why mark")
    assert [mark.text for mark in marks] == ["not", "bad", "at", "all", ":)"]
    assert marks[-1].get_attribute("class") == "for"
    assert page.execute_script("return getComputedStyle(arguments[0]).backgroundColor", marks[-1]) != "rgba(0, 0, 0, 0)"
    buttons[0].send_keys(Keys.ENTER)
    assert not page.find_elements("css selector", "tr.why")
    assert page.title == "senthy"
    assert page.get_log("browser") == []


def test_a_csv_is_labelled_and_downloaded_with_its_own_columns(page: Any, tmp_path: Path) -> None:
    rows = [["1", 'said "great", and\nmeant it'], ["2", "=1+1"], ["3", ""], ["4", "ünloved; awful"]]
    with (tmp_path / "mine.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=";").writerows([["score", "review"], *rows])
    page.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    find(page, "file").send_keys(str(tmp_path / "mine.csv"))
    until(page, lambda: "mine.csv: 4 rows" in text(page, "chosen-name"))
    assert page.execute_script("return document.activeElement.id") == "go"
    find(page, "go").click()
    until(page, lambda: text(page, "status") == "4 texts labelled")
    find(page, "download").click()
    made = tmp_path / "mine-labelled.csv"
    until(page, made.exists)
    with made.open(encoding="utf-8-sig", newline="") as file:
        read = list(csv.reader(file))
    added = ["prediction", "score", "p_negative", "p_neutral", "p_positive"]
    assert read[0] == ["score", "review", *(f"senthy_{name}" for name in added)]
    assert [row[:2] for row in read[1:]] == [rows[0], ["2", "'=1+1"], *rows[2:]]
    assert read[1][2] == "positive"
    assert read[3][2:] == [""] * 5
    assert float(read[1][3]) == pytest.approx(max(map(float, read[1][4:])))
    assert page.get_log("browser") == []


def test_a_csv_with_more_cells_than_its_header_is_refused(page: Any, tmp_path: Path) -> None:
    (tmp_path / "wide.csv").write_text('id,text\n1,"fine, thanks"\n2,not good, at all\n', encoding="utf-8")
    find(page, "file").send_keys(str(tmp_path / "wide.csv"))
    until(page, lambda: text(page, "status").startswith("wide.csv, row 2: 3 fields, the header has 2."))
    assert not find(page, "chosen").is_displayed()


def test_a_file_can_be_dropped_and_removed_again(page: Any) -> None:
    page.execute_script("""
        const given = new DataTransfer();
        given.items.add(new File(["fine\\n\\nawful\\n"], "lines.txt"));
        document.dispatchEvent(new DragEvent("drop", {dataTransfer: given, cancelable: true}));
    """)
    until(page, lambda: "lines.txt: 2 rows" in text(page, "chosen-name"))
    find(page, "go").click()
    until(page, lambda: text(page, "status") == "2 texts labelled")
    assert [row[:2] for row in cells(page)] == [["fine", "positive"], ["awful", "negative"]]
    find(page, "forget").click()
    assert find(page, "texts").is_enabled()


def test_answers_below_a_certainty_are_unsure(page: Any) -> None:
    find(page, "below").send_keys("100")
    find(page, "texts").send_keys("fine")
    find(page, "go").click()
    until(page, lambda: text(page, "status") == "1 text labelled")
    assert cells(page)[0][1] == "unsure"


def test_empty_input_and_a_file_without_rows_are_reported(page: Any, tmp_path: Path) -> None:
    find(page, "go").click()
    assert text(page, "status") == "Type a text, or open a file."
    (tmp_path / "empty.csv").write_text("text\n", encoding="utf-8")
    find(page, "file").send_keys(str(tmp_path / "empty.csv"))
    until(page, lambda: text(page, "status") == "empty.csv has no rows below its header.")


def test_a_model_published_since_is_shown_and_never_shares_a_run_with_the_old_one(page: Any) -> None:
    about = text(page, "about")
    page.execute_script("model.id = 'old'; model.labels = []; $('about').textContent = ''")
    find(page, "texts").send_keys("fine")
    find(page, "go").click()
    until(page, lambda: text(page, "status") == "1 text labelled")
    assert text(page, "about") == about
    assert page.execute_script("return csv()").splitlines()[0].endswith("p_negative,p_neutral,p_positive")
    page.execute_script("""
        const real = ask;
        window.ask = async (path, body, signal) => {
          const answer = await real(path, body, signal);
          return body?.texts[0] === "late" ? { ...answer, model: "new" } : answer;
        };
        $("texts").value = "fine\\n".repeat(TOGETHER) + "late";
    """)
    find(page, "go").click()
    until(page, lambda: "200 texts are labelled" in text(page, "status"))
    assert text(page, "status").startswith("The service has a new model. Label again")


def test_a_token_is_asked_for_once(browser: Any, services: dict[str, str]) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.get(services["closed"])
    until(browser, lambda: find(browser, "token-form").is_displayed())
    browser.switch_to.active_element.send_keys(TOKEN, Keys.ENTER)
    until(browser, lambda: "negative" in text(browser, "about"))
    assert not find(browser, "token-form").is_displayed()
    find(browser, "texts").send_keys("fine")
    find(browser, "go").click()
    until(browser, lambda: text(browser, "status") == "1 text labelled")
    browser.get_log("browser")  # the refusal is an entry there


@pytest.mark.parametrize("width", [360, 1400])
def test_the_page_does_not_scroll_sideways(page: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    find(page, "texts").send_keys("what a day " * 20)
    find(page, "go").click()
    until(page, lambda: text(page, "status") == "1 text labelled")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
