"""``senthy run-all``: each step once, one model's failure costs the others nothing."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from sentiment_hybrid.commands import run_all, train
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.errors import TrainingError, UsageError
from sentiment_hybrid.reporting.results import read_results
from sentiment_hybrid.runtime import Runtime


def names(project):
    return [entry["name"] for entry in read_results(project.folder / "results" / "model_results.json")]


def test_everything_runs_from_raw_data_to_one_comparison(make_project):
    project = make_project(prepare=False)
    result = run_all.run(project.config(), ("lstm", "han", "linear"))
    assert not result.failures
    assert names(project) == ["LSTMRoBERTa_Train", "HANRoBERTa_Train", "LinearRoBERTa_Train"]
    pairs = [(first, second) for _, first, second in result.comparisons]
    assert ("LSTMRoBERTa", "HANRoBERTa") in pairs
    assert ("LinearRoBERTa", "the TF-IDF baseline") in pairs
    assert len(pairs) == 6
    assert {comparison.pairs for comparison, _, _ in result.comparisons} == {6}, "corrected for all of them"
    assert result.files["comparison"].stat().st_size > 0


def test_a_second_run_does_nothing_and_reports_the_same(make_project):
    project = make_project(prepare=False)
    first = run_all.run(project.config(), ("lstm", "han"))
    second = run_all.run(project.config(), ("lstm", "han"))
    assert second.skipped == ["train lstm", "test lstm", "train han", "test han"]
    assert not second.data.built
    assert names(project) == ["LSTMRoBERTa_Train", "HANRoBERTa_Train"]
    for name, tested in first.tests.items():
        assert second.tests[name].scores == tested.scores
        assert second.tests[name].comparison == tested.comparison


def test_a_changed_setting_repeats_only_what_depends_on_it(make_project):
    project = make_project(prepare=False)
    run_all.run(project.config(), ("lstm", "han"))
    again = run_all.run(project.config("han.train.epochs=1"), ("lstm", "han"))
    assert again.skipped == ["train lstm", "test lstm"]
    tested_anew = run_all.run(project.config("han.train.epochs=1", "test.sample_size=20"), ("lstm", "han"))
    assert tested_anew.skipped == ["train lstm", "train han"]
    assert tested_anew.tests["LSTMRoBERTa"].rows == 20


def test_force_repeats_everything(make_project):
    project = make_project(prepare=False)
    run_all.run(project.config(), ("linear",))
    before = read_info(project.folder / "models" / "linear_roberta_model_final").run_id
    result = run_all.run(project.config(), ("linear",), force=True)
    assert result.skipped == []
    assert read_info(project.folder / "models" / "linear_roberta_model_final").run_id != before


@pytest.mark.parametrize("error", [TrainingError("the loss became nan"), RuntimeError("out of memory")])
def test_one_models_failure_does_not_lose_the_others_work(make_project, monkeypatch, error):
    project = make_project(prepare=False)
    real = train.run

    def fail_for_lstm(config, model, *arguments, **options):
        if model == "lstm":
            raise error
        return real(config, model, *arguments, **options)

    monkeypatch.setattr(train, "run", fail_for_lstm)
    result = run_all.run(project.config(), ("lstm", "han"))
    assert result.failures == {"LSTMRoBERTa": error}
    assert set(result.tests) == {"HANRoBERTa"}
    assert names(project) == ["HANRoBERTa_Train"]


def test_the_exit_code_tells_of_a_failure_and_the_table_is_still_printed(make_project, capsys):
    from sentiment_hybrid.cli import main

    project = make_project(prepare=False)
    arguments = ["run-all", "--config", str(project.file), "-m", "linear", "-m", "lstm", "-q"]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--set", "lstm.train.sample_size=99999"])
    assert caught.value.code == 1
    shown = capsys.readouterr()
    assert "LinearRoBERTa" in shown.out
    assert "sample_size" in shown.err or "99,999" in shown.err


def test_resuming_goes_on_where_it_can_and_starts_the_models_not_reached_yet(make_project, monkeypatch):
    project = make_project(prepare=False)
    real = train._train

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train, "fit", stop)
        with pytest.raises(KeyboardInterrupt):
            run_all.run(project.config(), ("lstm", "linear"))
    resumed = []

    def note_resume(config, model, runtime, *arguments, **options):
        resumed.append(runtime.resume)
        return real(config, model, runtime, *arguments, **options)

    monkeypatch.setattr(train, "_train", note_resume)
    result = run_all.run(project.config(), ("lstm", "linear"), runtime=Runtime(resume=True))
    assert resumed == [True, False]
    assert set(result.tests) == {"LSTMRoBERTa", "LinearRoBERTa"}


def test_predictions_of_another_model_are_never_compared_under_a_kept_score(make_project):
    project = make_project(prepare=False)
    first = run_all.run(project.config(), ("lstm", "linear"))
    lstm, linear = (test.files["predictions"] for test in first.tests.values())
    lstm.write_bytes(linear.read_bytes())
    again = run_all.run(project.config(), ("lstm", "linear"))
    assert again.skipped == ["train lstm", "train linear", "test linear"]
    assert again.comparisons == first.comparisons


def test_a_published_model_that_lost_its_weights_is_trained_again(make_project):
    project = make_project(prepare=False)
    run_all.run(project.config(), ("linear",))
    (project.folder / "models" / "linear_roberta_model_final" / "model.safetensors").unlink()
    assert run_all.run(project.config(), ("linear",)).skipped == []


SEARCHED = (
    "linear.hpo={n_trials: 3, epochs: 1, sample_size: 40, valid_sample_size: 20, "
    "search_space: {learning_rate: {type: float, low: 1e-3, high: 1e-1, log: true}}}"
)


def distinct_windows(config):
    """A digest of the token ids of each window that the prepared texts have."""
    from sentiment_hybrid.data.store import open_store
    from sentiment_hybrid.engine.tokenization import tokenize
    from sentiment_hybrid.models.encoder.hub import load_encoder

    with open_store(config.paths.data_db) as store:
        texts = [text for split in ("train", "valid", "test") for text in store.read(split).texts]
    tokenized = tokenize(texts, load_encoder(config.encoder).tokenizer, max_length=16, max_windows=32)
    bounds = itertools.pairwise(tokenized.window_offsets)
    return {digest_of(tokenized.ids[start:end]) for start, end in bounds}


def digest_of(ids):
    return hashlib.sha256(ids.astype("int64").tobytes()).digest()


def test_mode_optimize_searches_each_model_compares_the_best_and_encodes_each_window_once(make_project, monkeypatch):
    from sentiment_hybrid.models.encoder.module import Encoder

    passed: list[bytes] = []
    real = Encoder.below

    def counting(self, input_ids, attention_mask):
        passed.extend(
            digest_of(ids[tokens].cpu().numpy()) for ids, tokens in zip(input_ids, attention_mask.bool(), strict=True)
        )
        return real(self, input_ids, attention_mask)

    monkeypatch.setattr(Encoder, "below", counting)
    project = make_project(prepare=False)
    config = project.config(SEARCHED.replace("linear", "lstm", 1), SEARCHED.replace("linear", "han", 1))
    result = run_all.run(config, ("lstm", "han"), mode="optimize")
    assert not result.failures
    assert names(project) == ["LSTMRoBERTa_Optimize", "HANRoBERTa_Optimize"]
    assert {name: found.counts["finished"] + found.counts["pruned"] for name, found in result.searches.items()} == {
        "LSTMRoBERTa": 3,
        "HANRoBERTa": 3,
    }
    assert ("LSTMRoBERTa", "HANRoBERTa") in [(first, second) for _, first, second in result.comparisons]
    again = run_all.run(config, ("lstm", "han"), mode="optimize")
    assert again.skipped == ["train lstm", "train han"]
    assert again.tests["HANRoBERTa"].scores == result.tests["HANRoBERTa"].scores
    # Two searches, two trainings and two tests, and all of it once more: exactly one pass for each distinct window.
    windows = distinct_windows(config)
    assert (len(passed), set(passed)) == (len(windows), windows)


def test_one_models_failed_search_does_not_lose_the_others_and_the_exit_code_tells(make_project, capsys):
    from sentiment_hybrid.cli import main

    project = make_project(prepare=False)
    arguments = ["run-all", "--mode", "optimize", "-m", "lstm", "-m", "linear", "--config", str(project.file), "-q"]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--set", SEARCHED, "--set", "lstm.hpo.enabled=false"])
    assert caught.value.code == 1
    shown = capsys.readouterr()
    assert "Best trials" in shown.out
    assert "LinearRoBERTa" in shown.out
    assert "enabled" in shown.err


def test_one_study_for_several_models_is_refused_before_anything_runs(make_project):
    project = make_project(prepare=False)
    named = [f"{model}.hpo.study_name=mine" for model in ("lstm", "linear")]
    shared = [f"{model}.hpo.storage=sqlite:///{project.folder}/one.db" for model in ("lstm", "linear")]
    off = [f"{model}.hpo.enabled=false" for model in ("lstm", "linear")]  # this is refused later, and per model
    with pytest.raises(UsageError, match="cannot share a study"):
        run_all.run(project.config(*named, *shared, *off), ("lstm", "linear"), mode="optimize")
    assert not (project.folder / "data").exists()
    for fine in (named, shared):
        result = run_all.run(project.config(*fine, *off), ("lstm", "linear"), mode="optimize")
        assert all("enabled" in str(error) for error in result.failures.values())


def test_mode_test_tests_what_is_published_and_trains_nothing(make_project):
    project = make_project(prepare=False)
    result = run_all.run(project.config(), ("linear",), mode="test")
    assert "no model" in str(result.failures["LinearRoBERTa"])
    run_all.run(project.config(), ("linear",))
    result = run_all.run(project.config("test.sample_size=20"), ("linear",), mode="test")
    assert (result.tests["LinearRoBERTa"].rows, result.trained) == (20, {})
    assert names(project) == ["LinearRoBERTa_Train", "LinearRoBERTa_Test"]


def test_seeds_go_through_to_each_training_and_are_refused_elsewhere(make_project, capsys):
    project = make_project(prepare=False)
    result = run_all.run(project.config(), ("linear",), seeds=2)
    assert result.trained["LinearRoBERTa"].seeds["seeds"] == [42, 43]
    run_all.show(result)
    said = capsys.readouterr().out
    for word in ("LinearRoBERTa over 2 seeds", "(published)", "mean ± std", "test macro-F1 over seeds: LinearRoBERTa"):
        assert word in said
    again = run_all.run(project.config(), ("linear",), seeds=2)
    assert again.skipped == ["train linear", "test linear"]
    run_all.show(again)
    assert "LinearRoBERTa over 2 seeds" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--seeds"):
        run_all.run(project.config(), ("linear",), mode="test", seeds=2)


@pytest.mark.parametrize(
    ("mode", "read"),
    [
        ("train", lambda config: config.lstm.train.sample_size),
        ("optimize", lambda config: config.lstm.hpo.sample_size),
        ("test", lambda config: config.test.sample_size),
    ],
)
def test_the_sample_size_is_that_of_the_mode(monkeypatch, mode, read):
    from sentiment_hybrid.cli import main

    seen = []

    def run(config, models, *arguments, **options):
        seen.append(config)
        raise UsageError("seen")

    monkeypatch.setattr(run_all, "run", run)
    with pytest.raises(SystemExit):
        main(["run-all", "--mode", mode, "--sample-size", "77"])
    assert read(seen[0]) == 77


def test_an_option_of_a_search_without_a_search_is_refused(capsys):
    from sentiment_hybrid.cli import main

    with pytest.raises(SystemExit) as caught:
        main(["run-all", "--n-trials", "3"])
    assert caught.value.code == 2
    assert "--mode optimize" in capsys.readouterr().err
