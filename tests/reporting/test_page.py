"""The page of a report: one file, escaped texts, and figures that can be read without colour or script."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.evaluation.slices import Membership
from sentiment_hybrid.reporting.page.charts import Axis, Series, chart, intervals
from sentiment_hybrid.reporting.page.content import (
    Check,
    Curve,
    DataCard,
    Group,
    Mistake,
    ModelFigures,
    Report,
    Search,
    Word,
)  # fmt: skip
from sentiment_hybrid.reporting.page.render import render

HOSTILE = "<script>document.title='owned'</script> \"quoted\" & {{ 7*7 }} ]]> \u202e <img src=x onerror=alert(1)>"
LABELS = ("negative", "<b>positive</b>")


def model_figures(name: str, seed: int, *, rows: int = 200, errors: float = 0.2) -> ModelFigures:
    """A model with figures of random answers."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    wrong = random.random(rows) < errors
    top = 0.5 + random.random(rows) / 2
    probabilities = np.empty((rows, 2))
    predicted = np.where(wrong, 1 - labels, labels)
    probabilities[np.arange(rows), predicted], probabilities[np.arange(rows), 1 - predicted] = top, 1 - top
    scores = metrics.score(labels, probabilities, LABELS, metrics.Level(resamples=50))
    members = Membership()
    for row in range(rows):
        members.add("why?" if row % 3 else "a plain text", {"source": f"source {row % 10}"})
    mistakes = [Mistake(row, f"{HOSTILE} {row}", LABELS[0], LABELS[1], 0.9 - row / 100) for row in range(20)]
    return ModelFigures(
        name, scores, f"run-{seed}", coverage=[(0.1, 1.0), (0.5, 0.9), (1.0, 0.8)], coverage_at={0.95: 0.3},
        slices=members.slices(~wrong), mistakes=mistakes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def report() -> Report:
    models = [model_figures("lstm", 1), model_figures(HOSTILE, 2)]
    epochs = [{"epoch": number, "train_loss": 1 / number, "valid_macro_f1": 0.5 + number / 20} for number in (1, 2, 3)]
    curves = [Curve("run-1", "run-1", epochs, f"project: {HOSTILE}", {"seed": 1}), Curve("run-2", "run-2", [], "", {})]
    labels = np.arange(200) % 2
    comparison = metrics.compare(labels, labels, 1 - labels, metrics.Level(resamples=50))
    row = {"row": 3, "text": HOSTILE, "label": "a", "likely_label": "b", "why": "label error", "detail": "",
           "confidence": "0.9"}  # fmt: skip
    token = {"token": HOSTILE, "label": "a", "texts": 30, "share": 0.99}
    check = Check("2026-01-02", 100, {"label error": 1}, [row], [token])
    group = Group(
        "Test split", 200, LABELS, models, ModelFigures("baseline", models[0].scores), [(comparison, "a", "b")]
    )
    return Report(
        title=f"{HOSTILE}: report", created="2026-01-02 03:04 UTC", version="1", curves=curves,
        groups=[group],
        searches=[Search("study", [(0, 0.5), (2, 0.7)], 1, 0, {"dropout": 0.1}, {"dropout": 1.0})],
        data=DataCard("texts.csv", "tweet@2", "f" * 64, LABELS, {"train": [3, 4]}, {"dropped.empty": 2}),
        check=check, repeat=["senthy train"], notes=["one note"],
    )  # fmt: skip


class Tags(HTMLParser):
    """Tags and attributes, and the text outside of script and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in {"script", "style"}:
            self.text += data

    def named(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


def test_texts_and_names_are_shown_as_they_are_and_never_become_markup(report: Report) -> None:
    page = Tags(render(report))
    assert HOSTILE in page.text
    assert len(page.named("script")) == 1
    assert not page.named("img", "b")


def test_the_page_refers_to_nothing_outside_of_itself(report: Report) -> None:
    page = Tags(render(report))
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    for _, attributes in page.tags:
        assert not {"src", "srcset", "action"} & attributes.keys()
        if href := attributes.get("href"):
            assert href[1:] in ids
    assert "url(" not in render(report)
    policy = next(one["content"] for one in page.named("meta") if one.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_every_chart_has_a_description_and_every_table_a_caption_or_row_names(report: Report) -> None:
    page = Tags(render(report))
    charts = [one for one in page.named("svg") if one.get("aria-hidden") != "true"]
    assert len(charts) >= 6
    assert all(one["role"] == "img" and one["aria-label"] for one in charts)
    html = render(report)
    for table in re.findall(r"<table.*?</table>", html, re.DOTALL):
        assert "<caption>" in table or 'scope="row"' in table


def test_words_that_explain_a_mistake_are_told_apart_without_colour(report: Report) -> None:
    words = [Word("not", 0.8), Word("<good>", -0.3)]
    report = copy.deepcopy(report)
    report.groups[0].models[0].mistakes = [Mistake(1, "not <good>", *LABELS, 0.9, words)]
    page = Tags(render(report))
    spans = [one for one in page.named("span") if "word" in (one.get("class") or "")]
    assert [(one["class"], one["title"]) for one in spans] == [("word for", "+0.80"), ("word against", "-0.30")]
    assert "<good>" in page.text


def test_a_report_with_next_to_nothing_is_a_page_too() -> None:
    model = model_figures("lstm", 1, rows=3, errors=0.0)
    bare = ModelFigures("lstm", model.scores)
    page = render(Report("r", "now", "1", [Group("t", 3, LABELS, [bare])], [], [], None, None, [], []))
    assert Tags(page).named("table")


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.0, 1.0, ["0 %", "20 %", "40 %", "60 %", "80 %", "100 %"]),
        (0.7, 0.7, ["66 %", "68 %", "70 %", "72 %", "74 %"]),
        (0.811, 0.829, ["81 %", "81.5 %", "82 %", "82.5 %", "83 %"]),
    ],
)
def test_ticks_are_round_numbers_around_the_data(low: float, high: float, wanted: list[str]) -> None:
    drawn = chart("t", Axis("x", percent=False, whole=True), Axis("y"), [Series("s", [(1, low), (4, high)])])
    assert re.findall(r'class="left">([^<]+)<', str(drawn)) == wanted


def test_long_names_of_intervals_are_whole_on_two_lines() -> None:
    drawn = intervals(
        "t", [("LinearRoBERTa linear-20261129-212848-ff4a69", 0.5, 0.4, 0.6), ("TF-IDF baseline", 0.5, 0.4, 0.6)]
    )
    assert re.findall(r'class="left">([^<]+)<', str(drawn)) == [
        "LinearRoBERTa", "linear-20261129-212848-ff4a69", "TF-IDF baseline",
    ]  # fmt: skip


def test_points_that_are_not_numbers_are_left_out_and_a_chart_of_none_is_nothing() -> None:
    x, y = Axis("x", percent=False), Axis("y")
    assert chart("t", x, y, [Series("s", [(1, float("nan"))]), Series("s", [])]) == ""
    assert intervals("t", [("a", float("nan"), 0.1, 0.2)]) == ""
    drawn = chart("t", x, y, [Series("s", [(1, 0.5), (2, float("nan")), (3, 0.6)])])
    assert "nan" not in drawn
    assert "50 % at 1 to 60 % at 3" in drawn


# --- in a browser


@pytest.fixture
def page(browser: Any, report: Report, tmp_path: Path) -> Any:
    """The page, opened from disk."""
    path = tmp_path / "report.html"
    path.write_text(render(report), encoding="utf-8")
    browser.get(path.as_uri())
    return browser


def test_the_page_runs_in_a_browser_without_an_error_and_hostile_texts_do_nothing(page: Any) -> None:
    assert page.title == f"{HOSTILE}: report"
    assert page.get_log("browser") == []


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_but_tables_scrolls_sideways(page: Any, width: int) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert page.execute_script("return window.innerWidth") == width
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_tables_sort_by_numbers_and_names_and_filter_by_what_is_typed(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    table = page.find_element("xpath", "//table[caption[starts-with(., 'The most confident')]]")
    button = table.find_element("xpath", ".//th[button[contains(., 'confidence')]]/button")
    shown = "return [...arguments[0].tBodies[0].rows].filter(r => !r.hidden).map(r => r.cells[0].dataset.value)"
    button.send_keys(Keys.ENTER)  # by keyboard
    assert page.execute_script(shown, table) == [str(row) for row in reversed(range(20))]
    assert button.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.ENTER)
    assert page.execute_script(shown, table) == [str(row) for row in range(20)]
    field = table.find_element("xpath", "../preceding-sibling::label[1]/input")
    field.send_keys("alert(1)> 17")
    assert page.execute_script(shown, table) == ["17"]
    field.clear()
    field.send_keys(Keys.SPACE, Keys.BACKSPACE)
    assert len(page.execute_script(shown, table)) == 20
