"""`senthy report` and `senthy compare`: what was tested, on one page, as a table, and side by side."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sentiment_hybrid import cli, paths
from sentiment_hybrid.commands import compare, report
from sentiment_hybrid.commands import test as test_command
from sentiment_hybrid.commands import train as train_command
from sentiment_hybrid.commands.report import latest_tests
from sentiment_hybrid.engine.evaluation.slices import LEAST_ROWS
from sentiment_hybrid.engine.inference.tested import identifier
from sentiment_hybrid.errors import ColumnError, DataError, OutputError, UsageError
from sentiment_hybrid.runtime import Runtime

from .conftest import Project


@pytest.fixture(scope="session")
def tested_once(trained_once: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The trained project with two linear models, both tested; not to be changed."""
    import shutil

    folder = tmp_path_factory.mktemp("tested") / "project"
    shutil.copytree(trained_once.folder, folder)
    file = folder / "config.yaml"
    text = file.read_text(encoding="utf-8").replace(str(trained_once.folder), str(folder))
    file.write_text(text, encoding="utf-8")
    project = Project(folder, file)
    test_command.run(project.config(), "linear")
    train_command.run(project.config("linear.train.learning_rate=0.001", "project.seed=7"), "linear")
    return project


@pytest.fixture
def tested(tested_once: Project, tmp_path: Path) -> Project:
    """The same project with a results file of its own."""
    entries = json.loads(results(tested_once).read_text(encoding="utf-8"))
    place = tmp_path / "results" / paths.RESULTS_JSON
    place.parent.mkdir()
    place.write_text(json.dumps(entries), encoding="utf-8")
    file = tmp_path / "config.yaml"
    own = tested_once.file.read_text(encoding="utf-8")
    file.write_text(own.replace(str(tested_once.folder / "results"), str(place.parent)), encoding="utf-8")
    return replace(tested_once, file=file)


def senthy(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(list(arguments))
    assert stop.value.code == 0


def results(project: Project) -> Path:
    return paths.results_json(project.config().paths.results_dir)


def entries_of(project: Project) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(results(project).read_text(encoding="utf-8"))
    return found


def rewrite(project: Project, entries: list[Any]) -> None:
    results(project).write_text(json.dumps(entries), encoding="utf-8")


def ids(project: Project) -> list[str]:
    return [identifier(test) for test in latest_tests(project.config(), [], [])]


def test_the_page_has_both_models_their_difference_training_and_data(
    tested: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    senthy("report", "--config", str(tested.file))
    path = tested.config().paths.results_dir / "report.html"
    assert capsys.readouterr().out.startswith(f"{path}: 2 models, 1 set of texts")
    page = path.read_text(encoding="utf-8")
    first, second = ids(tested)
    assert first in page
    assert second in page
    content = report.gather(tested.config())
    (group,) = content.groups
    assert len(group.pairs) == 3
    assert [model.id for model in group.models] == [first, second]
    assert all(model.name.endswith(model.id) for model in group.models)
    assert content.data is not None
    assert sum(map(sum, content.data.counts.values())) == 240
    assert content.notes == []


def test_mistakes_are_the_most_confident_wrong_answers_and_slices_follow_a_column(
    tested: Project, tmp_path: Path
) -> None:
    content = report.gather(tested.config(), slice_by="label")
    for model in content.groups[0].models:
        path = next(
            test.files["predictions"] for test in latest_tests(tested.config(), [], []) if identifier(test) == model.id
        )
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        wrong = [row for row in lines if row["label"] != row["prediction"]]
        best = sorted((float(row["score"]) for row in wrong), reverse=True)[:20]
        assert [one.confidence for one in model.mistakes] == best
        rows = Counter(row["label"] for row in lines)
        of_labels = {one.name: one.rows for one in model.slices if one.kind == "label"}
        assert of_labels == {label: count for label, count in rows.items() if count >= LEAST_ROWS} != {}


def test_tables_for_papers_have_a_row_for_each_model(tested: Project, capsys: pytest.CaptureFixture[str]) -> None:
    for style in ("md", "latex", "csv"):
        senthy("report", "--config", str(tested.file), "--format", style)
        table = capsys.readouterr().out
        assert all(name in table.replace(r"\_", "_") for name in (*ids(tested), "TF-IDF baseline"))
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [float(row["accuracy"]) for row in rows[:2]] == pytest.approx(
        [entry["test"]["accuracy"]["value"] for entry in entries_of(tested) if "test" in entry], abs=1e-6
    )


def test_names_choose_models_and_an_unknown_one_lists_those_there_are(tested: Project) -> None:
    first, second = ids(tested)
    chosen = report.gather(tested.config(), [second])
    assert [model.id for model in chosen.groups[0].models] == [second]
    with pytest.raises(UsageError, match="no test results of nobody") as raised:
        report.gather(tested.config(), ["nobody"])
    assert first in raised.value.hint


def test_a_model_that_was_tested_again_is_shown_once_with_its_last_figures(tested: Project) -> None:
    entries = entries_of(tested)
    again = json.loads(json.dumps(entries[-1]))
    again["test"]["accuracy"]["value"] = 0.125
    rewrite(tested, [*entries, again])
    models = report.gather(tested.config()).groups[0].models
    assert len(models) == 2
    assert models[-1].scores.accuracy.value == 0.125


def test_what_is_damaged_foreign_or_gone_is_named_and_the_rest_is_shown(tested: Project, tmp_path: Path) -> None:
    entries = entries_of(tested)
    gone = json.loads(json.dumps(entries[0]))
    gone["files"]["predictions"] = str(tmp_path / "gone.csv")
    rewrite(tested, [gone, *entries[1:], {"test": {"accuracy": 1}}, {"other": "program"}, {"test": None}])
    content = report.gather(tested.config())
    assert len(content.groups[0].models) == 2
    assert any("2 entries" in line for line in content.notes)
    assert any("gone.csv" in line for line in content.notes)
    assert not content.groups[0].models[0].mistakes


def test_a_quick_test_on_fewer_rows_hides_no_other_test(tested: Project) -> None:
    entries = entries_of(tested)
    quick = json.loads(json.dumps(entries[-1]))
    quick["test"]["rows"] = quick["rows"] = 5
    rewrite(tested, [*entries, quick])
    assert [len(group.models) for group in report.gather(tested.config()).groups] == [2, 1]
    assert compare.run(tested.config(), *ids(tested)[:2]).comparison.rows == entries[0]["rows"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("files", None),
        ("files", {}),
        ("model_fingerprint", []),
        ("overlap_with_training", "x"),
        ("test", {"rows": 1}),
    ],
)
def test_an_entry_of_another_form_is_left_out(tested: Project, field: str, value: object) -> None:
    entries = entries_of(tested)
    entries[0][field] = value
    rewrite(tested, entries)
    content = report.gather(tested.config())
    assert [len(group.models) for group in content.groups] == [1]
    assert any("could not be read" in line for line in content.notes)


def test_the_beginning_of_a_run_names_it(tested: Project) -> None:
    _, second = ids(tested)
    assert [model.id for model in report.gather(tested.config(), [second[:-2]]).groups[0].models] == [second]


def test_predictions_that_were_changed_after_the_test_are_not_used(tested: Project, tmp_path: Path) -> None:
    entries = entries_of(tested)
    changed = tmp_path / "changed.csv"
    changed.write_text(Path(entries[0]["files"]["predictions"]).read_text(encoding="utf-8") + "\n", encoding="utf-8")
    entries[0]["files"]["predictions"] = str(changed)
    rewrite(tested, entries)
    content = report.gather(tested.config())
    assert any("changed or replaced after the test" in line for line in content.notes)
    with pytest.raises(DataError, match="changed or replaced after the test"):
        compare.run(tested.config(), *ids(tested))


def test_without_results_it_says_what_to_do_first(tested: Project) -> None:
    rewrite(tested, [])
    with pytest.raises(OutputError, match="no test results") as raised:
        report.run(tested.config())
    assert "senthy train" in raised.value.hint


def test_a_column_that_the_data_has_not_is_reported_and_the_rest_is_shown(tested: Project) -> None:
    content = report.gather(tested.config(), slice_by="airline")
    assert sum("no slices by airline" in line for line in content.notes) == 1
    assert all(model.slices for model in content.groups[0].models)


def test_values_of_a_column_are_kept_with_a_test_and_outlive_a_change_of_the_source(
    tested: Project, tmp_path: Path
) -> None:
    with pytest.raises(ColumnError, match="airline"):
        test_command.run(tested.config("test.slice_by=airline"), "linear")
    rows = [("text", "label", "shop")]
    rows += [(f"{word} day number {at}", label, f"shop {at % 2}") for at in range(40)
             for word, label in (("good", "positive"), ("bad", "negative"))]  # fmt: skip
    file = tmp_path / "shops.csv"
    file.write_text("\n".join(map(",".join, rows)), encoding="utf-8")
    test_command.run(tested.config("test.slice_by=shop"), "linear", data_file=file)

    def shops() -> list[str]:
        groups = report.gather(tested.config(), slice_by="shop").groups
        return sorted(
            one.name for group in groups for model in group.models for one in model.slices if one.kind == "shop"
        )

    assert shops() == ["shop 0", "shop 1"]
    file.unlink()
    assert shops() == ["shop 0", "shop 1"]
    assert {one.kind for one in report.gather(tested.config()).groups[-1].models[0].slices} >= {"shop"}


def test_slices_by_a_column_are_found_where_another_text_column_than_the_first_was_tested(
    tested: Project, tmp_path: Path
) -> None:
    file = tmp_path / "shops.csv"
    lines = [
        f"reply {at},{word} day number {at},{label},shop {at % 2}"
        for at in range(40)
        for word, label in (("good", "1"), ("bad", "0"))
    ]
    file.write_text("\n".join(["text,tweet,label,shop", *lines]), encoding="utf-8")
    test_command.run(tested.config("data.text_column=tweet"), "linear", data_file=file)
    content = report.gather(tested.config(), slice_by="shop")
    assert not any("has changed" in line for line in content.notes)
    found = {
        one.name for group in content.groups for model in group.models for one in model.slices if one.kind == "shop"
    }
    assert found == {"shop 0", "shop 1"}


def test_a_source_that_has_changed_since_the_test_gives_no_slices(tested: Project, tmp_path: Path) -> None:
    file = tmp_path / "shops.csv"
    lines = [f"{word} day number {at},{label},a" for at in range(30) for word, label in (("good", "1"), ("bad", "0"))]
    file.write_text("\n".join(["text,label,shop", *lines]), encoding="utf-8")
    test_command.run(tested.config(), "linear", data_file=file)
    file.write_text("\n".join(["text,label,shop", "another text,1,b", *lines[1:]]), encoding="utf-8")
    content = report.gather(tested.config(), slice_by="shop")
    assert any("has changed: 1 of 60 tested rows" in line for line in content.notes)


def test_a_head_names_its_models(tested: Project) -> None:
    assert [model.id for model in report.gather(tested.config(), ["linear"]).groups[0].models] == ids(tested)
    with pytest.raises(UsageError) as caught:
        report.gather(tested.config(), ["lstm"])
    assert caught.value.hint.endswith(", linear.")


@pytest.mark.parametrize(
    ("name", "start"), [("t.tex", "% "), ("t.md", "Test split"), ("t.csv", "data,"), ("t.html", "<!d")]
)
def test_the_extension_of_the_output_tells_the_format(tested: Project, tmp_path: Path, name: str, start: str) -> None:
    report.run(tested.config(), output=tmp_path / name, explain=False)
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(start)


def test_a_page_of_another_extension_is_refused(tested: Project, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"page.pdf is not the name of a page"):
        report.run(tested.config(), output=tmp_path / "page.pdf")
    report.run(tested.config(), output=tmp_path / "table.txt", style="md")


def test_two_models_are_compared_on_the_same_rows_and_settings_that_differ_are_shown(
    tested: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = ids(tested)
    senthy("compare", first, second, "--config", str(tested.file), "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["comparison"]["rows"] == entries_of(tested)[0]["rows"]
    by_run = {entry.get("run"): entry["test"]["accuracy"]["value"] for entry in entries_of(tested)}
    gap = found["tests"][0]["accuracy"]["value"] - by_run[second]
    assert found["comparison"]["accuracy"]["value"] == pytest.approx(gap)
    senthy("compare", first, second, "--config", str(tested.file))
    assert "alone is right on" in capsys.readouterr().out


@pytest.mark.parametrize("other", ["same", "rows"])
def test_what_cannot_be_compared_is_refused(tested: Project, other: str) -> None:
    first, second = ids(tested)
    if other == "same":
        with pytest.raises(UsageError, match="are one model"):
            compare.run(tested.config(), first, first)
        return
    entries = entries_of(tested)
    entries[-1]["split"] = "valid"
    rewrite(tested, entries)
    with pytest.raises(UsageError, match="not tested on the same rows"):
        compare.run(tested.config(), first, second)


def test_mistakes_are_explained_by_the_words_of_their_texts_unless_the_model_has_changed(tested: Project) -> None:
    config = tested.config()
    content = report.gather(config)
    mistakes = [mistake for model in content.groups[0].models for mistake in model.mistakes]
    report.explain_mistakes(config, content, Runtime())
    explained = [mistake for model in content.groups[0].models for mistake in model.mistakes]
    assert mistakes
    assert ["".join(word.text for word in one.words) for one in explained] == [one.text for one in mistakes]
    assert all(max(abs(word.weight) for word in one.words) == pytest.approx(1.0) for one in explained)
    entries = entries_of(tested)
    for entry in entries:
        entry["model_fingerprint"] = f"another{entry['model_fingerprint']}"
    rewrite(tested, entries)
    content = report.gather(config)
    report.explain_mistakes(config, content, Runtime())
    assert sum("another model is in" in line for line in content.notes) == 2


def test_what_a_check_found_is_on_the_page_if_it_was_on_this_data(tested: Project) -> None:
    config = tested.config()
    assert report.gather(config).data is not None
    row = {name: name for name in ("row", "text", "label", "likely_label", "why", "detail", "confidence")}
    found = {
        "data_fingerprint": entries_of(tested)[0]["data_fingerprint"], "created": "now", "rows": 9,
        "counts": {"label error": 1}, "examples": {"label error": [{**row, "id": "t1"}]}, "artefacts": [],
    }  # fmt: skip
    place = paths.check_json(config.paths.results_dir)
    place.write_text(json.dumps(found), encoding="utf-8")
    check = report.gather(config).check
    assert check is not None
    assert (check.counts, check.flagged) == ({"label error": 1}, [row])
    for content, words in (
        (json.dumps({**found, "data_fingerprint": "x"}), "other data"),
        (json.dumps({**found, "examples": {"label error": [{}]}}), "damaged"),
        ("[]", "damaged"),
    ):
        place.write_text(content, encoding="utf-8")
        again = report.gather(config)
        assert again.check is None
        assert any(words in line for line in again.notes)
