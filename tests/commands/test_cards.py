"""Model cards: README.md of every model directory, with the Hub's metadata and the figures of its tests."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import ModelCard

from sentiment_hybrid import paths
from sentiment_hybrid.commands import finetune, test
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.engine.evaluation import metrics
from sentiment_hybrid.engine.inference import model_card, testing
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.errors import ConfigError
from sentiment_hybrid.reporting.card import Tested, joined, parts, plain, taken_over, with_figures

from .conftest import Project, write_toy_csv

FRAME = "# M\n\n<!-- figures -->\nnone\n<!-- end of figures -->\n\nmine\n\n<!-- license -->\n<!-- end of license -->\n"


def published(project: Project) -> Path:
    return paths.published_model(project.config().paths.models_dir, "linear")


def card_in(directory: Path) -> str:
    return (directory / paths.MODEL_CARD).read_text(encoding="utf-8")


def scores(rows: int = 40) -> metrics.Scores:
    truth = [row % 2 for row in range(rows)]
    chances = [[0.8, 0.2] if row % 4 else [0.3, 0.7] for row in range(rows)]
    return metrics.score(truth, chances, ("no", "yes"), metrics.Level(confidence=0.9, resamples=100, seed=0))


def test_a_card_tells_data_labels_settings_and_use_and_no_place_on_this_machine(trained: Project) -> None:
    directory = published(trained)
    info, text = read_info(directory), card_in(directory)
    assert ModelCard(text).data.to_dict()["pipeline_tag"] == "text-classification"
    for part in (*info.labels, f"{info.train_rows:,} training texts", "learning_rate:", "Predictor", "Not tested yet"):
        assert part in text
    assert f"{info.valid_rows} validation texts selected" in text
    assert str(trained.folder) not in text
    assert info.encoder_name not in text, "a folder's name is enough"


def test_a_test_adds_its_figures_with_intervals_to_every_copy_of_the_model(trained: Project) -> None:
    config = trained.config("models.language=en", "models.datasets=a/b")
    result = test.run(config, "linear")
    directory = published(trained)
    own = paths.kept_models(config.paths.models_dir) / read_info(directory).run_id
    assert card_in(own) == card_in(directory)
    data = ModelCard(card_in(directory)).data
    assert (data.language, data.datasets) == (["en"], ["a/b"])
    figures = {one.metric_type: one.metric_value for one in data.eval_results}
    assert figures["accuracy"] == pytest.approx(result.scores.accuracy.value, abs=1e-4)
    assert {one.dataset_split for one in data.eval_results} == {"test"}
    low, high = (f"{100 * edge:.1f}" for edge in (result.scores.accuracy.low, result.scores.accuracy.high))
    assert f"[{low}, {high}]" in card_in(directory)
    assert "Not tested yet" not in card_in(directory)
    file = write_toy_csv(trained.folder / "other.csv", 40, seed=9)
    test.run(config, "linear", data_file=file)
    assert "other.csv, file" in card_in(directory)
    assert ", test (" in card_in(directory), "tests of other rows stay"
    test.run(config, "linear", data_file=trained.folder / "texts.csv")
    assert re.search(r"texts\.csv, file \(\d+ texts, \d+ of them trained on\)", card_in(directory))
    before = card_in(directory)
    test.run(config, "linear", split="train")
    assert card_in(directory) == before, "figures on training rows are no figures of the model"


def test_the_license_is_named_by_the_user_and_asked_for_otherwise(trained: Project) -> None:
    directory = published(trained)
    assert "license" not in parts(card_in(directory))[0]
    assert "models.license" in card_in(directory)
    test.run(trained.config("models.license=Apache-2.0", "test.baseline=false"), "linear")
    assert ModelCard(card_in(directory)).data.license == "apache-2.0"
    assert "models.license" not in card_in(directory)
    test.run(trained.config("test.baseline=false"), "linear")
    assert ModelCard(card_in(directory)).data.license == "apache-2.0", "it stays"
    with pytest.raises(ConfigError) as caught:
        load_config("default", overrides=["models.license=MIT License"])
    assert "apache-2.0" in str(caught.value.problems)


def test_a_foreign_readme_is_left_as_it_is_and_a_missing_card_is_written(
    trained: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    config, directory = trained.config("test.baseline=false"), published(trained)
    (directory / paths.MODEL_CARD).write_text("# My own words\n", encoding="utf-8")
    own = paths.kept_models(config.paths.models_dir) / read_info(directory).run_id
    (own / paths.MODEL_CARD).unlink()  # as in earlier versions
    test.run(config, "linear")
    assert card_in(directory) == "# My own words\n"
    assert "does not get the figures" in " ".join(capsys.readouterr().err.split())
    assert ModelCard(card_in(own)).data.eval_results


def test_a_fine_tuned_model_has_a_card_with_both_of_its_tests(project: Project) -> None:
    from sentiment_hybrid.commands import train

    train.run(project.config(), "linear", test=False)
    new = write_toy_csv(project.folder / "new.csv", 120, seed=5)
    result = finetune.run(project.config("finetune.epochs=1"), "linear", data_file=new)
    text = card_in(result.model_dir)
    assert f"Fine-tuned on {result.train_rows} training texts of new.csv" in text
    assert "new.csv, new test (" in text
    assert "texts.csv, old test (" in text
    assert len({one.dataset_split for one in ModelCard(text).data.eval_results}) == 2


def test_the_card_of_the_package_is_not_touched() -> None:
    directory = paths.mini_dir() / "han"
    before = sorted(directory.iterdir())
    testing.add_to_card(load_config("default"), SimpleNamespace(directory=directory, info=None), [])  # type: ignore[arg-type]
    assert sorted(directory.iterdir()) == before


def test_the_same_rows_replace_their_figures_and_the_words_of_people_stay() -> None:
    card = joined({"tags": ["x"], "extra": 1}, FRAME)
    card = with_figures(card, [Tested("a.csv", "test", scores())], name="m")
    again = with_figures(card, [Tested("a.csv", "test", scores()), Tested("b|\n<i>.csv", "file", scores(80))], name="m")
    rows = [line for line in again.splitlines() if line.startswith(("| a.csv", "| b"))]
    assert len(rows) == 2
    assert rows[1].startswith(r"| b\| &lt;i>.csv, file (80 texts) | ")
    assert "mine" in again
    header, _ = parts(again)
    assert (header["extra"], len(header["model-index"][0]["results"])) == (1, 2)
    assert with_figures(again, [Tested("a.csv", "test", scores())], name="m") == again


def test_a_derived_card_takes_over_figures_and_license_of_the_original() -> None:
    body = FRAME + "<!-- settings -->\ns\n<!-- end of settings -->\n"
    old = with_figures(joined({"license": "mit"}, body), [Tested("a.csv", "test", scores())], name="m")
    new = taken_over(joined({"tags": ["onnx"]}, body), old)
    assert "| a.csv, test" in new
    header, _ = parts(new)
    assert (header["license"], header["tags"]) == ("mit", ["onnx"])
    assert header["model-index"]
    assert "model-index" not in parts(taken_over(joined({"tags": ["onnx"]}, body), old, same=False))[0]
    assert "`mit`" in new


@pytest.mark.parametrize("text", ["", "# words", "---\nno: [\n---\n", "---\n- a list\n---\nwords"])
def test_what_is_no_card_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="header"):
        with_figures(text, [Tested("a", "test", scores())], name="m")


def test_names_are_no_markup() -> None:
    assert plain("a|b\n<script>*x*") == r"a\|b &lt;script>\*x\*"


def test_an_export_says_how_it_agrees(trained: Project, tmp_path: Path) -> None:
    facts: dict[str, Any] = {"kind": "int8", "check": {"agreement": 0.99, "rows": 60}}
    directory = published(trained)
    model_card.write_card(
        tmp_path, read_info(directory), model_card.Card({"license": "mit"}, export=facts, original=directory)
    )
    text = card_in(tmp_path)
    assert "ONNX, int8; 99.00 % of its labels on 60 texts" in text
    assert "onnx" in ModelCard(text).data.tags
    assert "learning_rate:" in text, "the settings of the original"
