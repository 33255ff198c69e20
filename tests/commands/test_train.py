"""``senthy train``: publishes the best epoch, tests it, goes on after a stop as if there had been none."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sentiment_hybrid import paths
from sentiment_hybrid.commands import train
from sentiment_hybrid.engine.inference.model_directory import load_model, read_info
from sentiment_hybrid.engine.training.checkpoints import RunCheckpoints
from sentiment_hybrid.engine.training.fingerprint import is_published
from sentiment_hybrid.engine.training.runs import Run
from sentiment_hybrid.errors import DatabaseError, DataError, EncoderError, OutputError, TrainingError, UsageError
from sentiment_hybrid.models.encoder.hub import load_encoder
from sentiment_hybrid.reporting.results import read_results
from sentiment_hybrid.runtime import Runtime


@pytest.mark.parametrize(
    ("model", "name"), [("lstm", "LSTMRoBERTa"), ("han", "HANRoBERTa"), ("linear", "LinearRoBERTa")]
)
def test_training_publishes_a_model_tests_it_and_writes_the_results(project, model, name):
    config = project.config()
    result = train.run(config, model)
    directory = project.folder / "models" / f"{model}_roberta_model_final"
    assert result.model_dir == directory
    assert load_model(directory).info.labels == ("negative", "positive")
    entry = read_results(project.folder / "results" / "model_results.json")[-1]
    assert entry["name"] == f"{name}_Train"
    assert entry["test"]["accuracy"]["value"] == result.test.scores.accuracy.value
    assert entry["baseline"]["accuracy"]["low"] <= entry["baseline"]["accuracy"]["value"]
    for file in result.test.files.values():
        assert file.stat().st_size > 0
    run = Run(result.run_dir)
    assert [facts["epoch"] for facts in run.epochs()] == [1, 2]
    assert run.config() == config
    assert "finished" in run.meta()
    assert run.meta()["data_fingerprint"] == load_model(directory).info.data_fingerprint
    assert (run.folder / paths.RUN_CURVES).stat().st_size > 0
    assert not (run.folder / paths.CHECKPOINTS_DIR).exists()


def test_a_model_on_a_bert_is_not_called_roberta(project, tiny_encoder_dir):
    bert = shutil.copytree(tiny_encoder_dir, project.folder / "encoder")
    architecture = json.loads((bert / "config.json").read_text(encoding="utf-8"))
    changes = {"model_type": "bert", "pad_token_id": 1, "layer_norm_eps": 1e-12}
    (bert / "config.json").write_text(json.dumps({**architecture, **changes}), encoding="utf-8")
    result = train.run(project.config(f"encoder.name={bert}"), "linear")
    assert result.model == read_info(result.model_dir).display_name == "Linear-BERT"
    assert read_results(project.folder / "results" / "model_results.json")[-1]["name"] == "Linear-BERT_Train"


def test_the_best_epoch_on_validation_is_the_one_published(project):
    config = project.config("linear.train.epochs=6", "linear.train.learning_rate=0.5", "linear.train.patience=null")
    result = train.run(config, "linear", test=False)
    epochs = Run(result.run_dir).epochs()
    best = max(epochs, key=lambda facts: facts["valid_macro_f1"])  # the first of equals
    assert result.best_epoch == best["epoch"]
    assert result.valid["macro_f1"] == best["valid_macro_f1"]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(make_project):
    first, second, third = (make_project(name) for name in "abc")
    digests = [
        read_info(train.run(p.config(f"project.seed={seed}"), "lstm", test=False).model_dir).weights_sha256
        for p, seed in ((first, 1), (second, 1), (third, 2))
    ]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("trainable_layers", [0, 1])
def test_heads_and_runs_share_the_states_below_what_is_trained(project, trainable_layers):
    config = project.config(f"encoder.trainable_layers={trainable_layers}")
    passes = {model: train.run(config, model).encoder_passes for model in ("lstm", "han", "linear")}
    assert passes["lstm"] > 0
    assert passes["han"] == passes["linear"] == 0
    # A published encoder that was trained in part has states of its own, which serve nobody else: none are kept.
    assert len(list(paths.states_dir(config.paths.cache_dir).iterdir())) == 1


@pytest.mark.parametrize("trainable_layers", [0, 1])
def test_without_room_for_states_it_trains_on_the_live_encoder_and_says_so_once(project, caplog, trainable_layers):
    override = f"encoder.trainable_layers={trainable_layers}"
    stored = train.run(project.config(override), "lstm")
    caplog.clear()
    no_room = ("cache.max_gb=1e-7", f"paths.cache_dir={project.folder / 'full'}")
    live = train.run(project.config(override, *no_room), "lstm")
    told = [record.getMessage() for record in caplog.records if "cache.max_gb" in record.getMessage()]
    assert len([one for one in told if "the encoder runs in every epoch instead" in one]) == 1
    assert live.valid["loss"] == pytest.approx(stored.valid["loss"], abs=5e-3)
    assert live.test.encoder_passes >= live.test.rows
    assert not list(paths.states_dir(project.folder / "full").glob("*/shard-*"))


KILLED = """
import os, signal, sys
from sentiment_hybrid.commands import train
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.engine.training import checkpoints
import torch
torch.set_num_threads(1)
moment, saves = sys.argv[2], int(sys.argv[3])
real = checkpoints.RunCheckpoints.save
done = 0
def save(self, state, **options):
    global done
    done += 1
    if moment == "before" and done == saves:
        os.kill(os.getpid(), signal.SIGKILL)
    if moment == "while" and done == saves:
        checkpoints.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    real(self, state, **options)
    if moment == "after" and done == saves:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints.RunCheckpoints.save = save
train.run(load_config(sys.argv[1]), "lstm")
"""


@pytest.mark.parametrize(("moment", "saves"), [("after", 4), ("before", 12), ("while", 7)])
def test_a_training_killed_and_resumed_equals_one_never_killed_bit_for_bit(make_project, moment, saves):
    if os.name != "posix":
        pytest.skip("needs POSIX signals")
    override = "lstm.train.checkpoint_minutes=0"  # a checkpoint after every step
    whole, killed = make_project("whole"), make_project("killed")
    expected = train.run(whole.config(override), "lstm", test=False)
    killed.file.write_text(killed.file.read_text().replace("epochs: 2", "epochs: 2\n    checkpoint_minutes: 0"))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(killed.file), moment, str(saves)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    result = train.run(killed.config(), "lstm", runtime=Runtime(resume=True), test=False)
    assert result.resumed
    assert read_info(result.model_dir).weights_sha256 == read_info(expected.model_dir).weights_sha256
    assert result.valid == expected.valid
    assert [e["epoch"] for e in Run(result.run_dir).epochs()] == [1, 2]


INTERRUPTED = """
import os, signal, sys
from sentiment_hybrid.engine.training import trainer
import torch
torch.set_num_threads(1)
real = trainer.Trainer._step
steps = 0
def step(self, *arguments):
    global steps
    steps += 1
    if steps == 5:
        os.kill(os.getpid(), getattr(signal, sys.argv.pop()))
    return real(self, *arguments)
trainer.Trainer._step = step
from sentiment_hybrid.cli import main
main(sys.argv[1:-1])
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_saves_the_step_and_says_how_to_go_on(project, name):
    if os.name != "posix":
        pytest.skip("needs POSIX signals")
    arguments = ["train", "--model", "lstm", "--config", str(project.file)]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *arguments, name],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 130, done.stderr
    assert "--resume" in done.stderr
    run = Run(next((project.folder / "results" / "runs").iterdir()))
    assert run.checkpoints.load("last").progress["step"] == 5
    assert train.run(project.config(), "lstm", runtime=Runtime(resume=True), test=False).resumed


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupt_while_memory_runs_out_is_heard_when_the_step_is_done_and_saved(project, monkeypatch):
    from sentiment_hybrid.engine.training.trainer import Trainer

    gradients, calls = Trainer._gradients, iter(range(99))

    def scarce(self, *arguments, **options):
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            return None
        return gradients(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "_gradients", scarce)
    with pytest.raises(KeyboardInterrupt, match="state saved"):
        train.run(project.config(), "linear", test=False)
    (folder,) = (project.folder / "results" / "runs").iterdir()
    assert Run(folder).checkpoints.load("last").progress["step"] == 3


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_a_second_interrupt_within_a_step_stops_at_once_and_names_the_saved_state(project, monkeypatch, request):
    from sentiment_hybrid.engine.training.trainer import Trainer

    gradients, calls = Trainer._gradients, iter(range(99))

    def impatient(self, *arguments, **options):
        if next(calls) == 15:  # in the second epoch
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGINT)
        return gradients(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "_gradients", impatient)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as without nohup
    request.addfinalizer(lambda: signal.signal(signal.SIGHUP, before))
    with pytest.raises(KeyboardInterrupt, match=r"stopped at once; the last saved state .* --resume"):
        train.run(project.config(), "linear", test=False)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


@pytest.mark.parametrize("what", ["results", "results/runs/*/checkpoints"])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_run_folder_that_is_deleted_while_training_is_restored(project, monkeypatch, capsys, what, epoch):
    from sentiment_hybrid.engine.training.trainer import Trainer

    gradients = Trainer._gradients

    def deleted(self, *arguments, **options):
        if self.progress.epoch == epoch:
            for place in project.folder.glob(what):
                shutil.rmtree(place)
        return gradients(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "_gradients", deleted)
    result = train.run(project.config("linear.train.epochs=4", "linear.train.learning_rate=1e-9"), "linear")
    err = capsys.readouterr().err
    assert ("deleted during the training; it is restored" in err) == (what == "results" or epoch > 1)
    assert ("without its best epoch" in err) == (epoch > 1)
    run = Run(result.run_dir)
    assert [facts["epoch"] for facts in run.epochs()] == [1, 2, 3, 4]
    assert run.meta()["finished"]
    assert run.settings()["linear"]["train"]["epochs"] == 4
    assert load_model(result.model_dir).info.run_id == run.id


def test_resuming_with_other_settings_is_refused(project):
    config = project.config()
    Run.start(config, "lstm", "another fingerprint")
    with pytest.raises(TrainingError, match="other settings or other data"):
        train.run(config, "lstm", runtime=Runtime(resume=True))


def test_resuming_with_changed_settings_names_them_and_how_to_go_on(project, monkeypatch):
    before = project.config("linear.train.checkpoint_minutes=5", "han.train.epochs=9")
    stop_before_the_first_checkpoint(monkeypatch, lambda: train.run(before, "linear"))
    changes = ["linear.train.epochs=3", "linear.train.class_weights=balanced", "encoder.max_length=12"]
    with pytest.raises(TrainingError) as caught:
        train.run(project.config(*changes), "linear", runtime=Runtime(resume=True))
    for words in (
        "encoder.max_length was 16 and is 12",
        'linear.train.class_weights was "none" and is "balanced"',
        "linear.train.epochs was 2 and is 3",
    ):
        assert words in caught.value.message
    assert "checkpoint_minutes" not in caught.value.message
    assert "han" not in caught.value.message
    back = re.findall(r"--set ([^\s,]+)", caught.value.hint)
    result = train.run(project.config(*changes, *back), "linear", runtime=Runtime(resume=True), test=False)
    assert len(list(result.run_dir.parent.iterdir())) == 1, "what the hint says goes on with the run"


def test_resuming_without_an_unfinished_run_is_refused(project):
    train.run(project.config(), "linear", test=False)
    with pytest.raises(TrainingError, match="no unfinished linear run"):
        train.run(project.config(), "linear", runtime=Runtime(resume=True))


def stop_before_the_first_checkpoint(monkeypatch, run_it):
    def stop(self, state, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunCheckpoints, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            run_it()


def test_a_precision_that_the_processor_lacks_is_refused_before_anything_is_computed(project, monkeypatch):
    from sentiment_hybrid.engine.states.store import StateStore
    from sentiment_hybrid.models import processor

    monkeypatch.setattr(processor, "computes_bf16", lambda: False)
    monkeypatch.setattr(StateStore, "ensure", lambda *arguments, **options: pytest.fail("states were computed"))
    with pytest.raises(TrainingError, match="bf16 requires a processor with AVX-512") as caught:
        train.run(project.config("lstm.train.precision=bf16"), "lstm")
    assert caught.value.hint == "Set the precision to auto or fp32."
    assert not list((project.folder / "results").glob("runs/*"))


@pytest.mark.processor(needs="bf16")
def test_resuming_goes_on_with_the_threads_and_precision_of_the_start(project, monkeypatch):
    import torch

    config = project.config("linear.train.precision=bf16")
    stop_before_the_first_checkpoint(monkeypatch, lambda: train.run(config, "linear"))
    torch.set_num_threads(2)
    result = train.run(config, "linear", runtime=Runtime(resume=True), test=False)
    assert torch.get_num_threads() == 1
    assert Run(result.run_dir).meta()["compute"] == {"device": "cpu", "precision": "bf16", "threads": 1}


def test_resuming_over_another_encoder_is_refused(project, monkeypatch, tiny_encoder_dir, tmp_path):
    import shutil

    import torch

    from sentiment_hybrid.models.encoder.hub import load_encoder_dir, save_encoder

    copy = tmp_path / "encoder"
    shutil.copytree(tiny_encoder_dir, copy)
    config = project.config(f"encoder.name={copy}")
    stop_before_the_first_checkpoint(monkeypatch, lambda: train.run(config, "linear"))
    loaded = load_encoder_dir(copy)
    with torch.no_grad():
        next(loaded.model.parameters()).add_(0.1)
    save_encoder(loaded.model, loaded.tokenizer, copy)
    with pytest.raises(TrainingError, match="other settings or other data"):
        train.run(config, "linear", runtime=Runtime(resume=True))


def test_resuming_prefers_the_run_that_has_a_checkpoint(project, monkeypatch):
    config = project.config()
    real = RunCheckpoints.save

    def save_once(self, state, **options):
        real(self, state, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunCheckpoints, "save", save_once)
        with pytest.raises(KeyboardInterrupt):
            train.run(config, "linear")
    good = next((project.folder / "results" / "runs").iterdir())
    stop_before_the_first_checkpoint(monkeypatch, lambda: train.run(config, "linear"))
    result = train.run(config, "linear", runtime=Runtime(resume=True), test=False)
    assert result.run_dir == good
    assert result.resumed


def test_a_run_that_another_process_trains_is_not_resumed(project, monkeypatch):
    config = project.config()
    stop_before_the_first_checkpoint(monkeypatch, lambda: train.run(config, "linear"))
    run = Run(next((project.folder / "results" / "runs").iterdir()))
    with run.locked(), pytest.raises(TrainingError, match="trained by another process"):
        train.run(config, "linear", runtime=Runtime(resume=True))


def test_a_stop_during_the_final_test_is_resumed_with_the_test_and_its_entry(project, monkeypatch):
    config = project.config()

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(train, "evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            train.run(config, "linear")
    result = train.run(config, "linear", runtime=Runtime(resume=True))
    assert result.test is not None
    assert [e["name"] for e in read_results(project.folder / "results" / "model_results.json")] == [
        "LinearRoBERTa_Train"
    ]


def test_seeds_that_were_stopped_go_on_with_what_is_done(project, monkeypatch):
    config = project.config()
    calls = []
    real = train._train

    def stop_at_second(config, *arguments, **options):
        calls.append(config.project.seed)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(config, *arguments, **options)

    monkeypatch.setattr(train, "_train", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        train.run(config, "linear", seeds=3)
    result = train.run(config, "linear", seeds=3, runtime=Runtime(resume=True))
    assert calls == [42, 43, 43, 44], "the first seed is not trained again"
    assert len(result.seeds["figures"]["test_accuracy"]["values"]) == 3


def test_several_seeds_are_trained_tested_and_summed_up_and_validation_chooses(project):
    result = train.run(project.config(), "linear", seeds=3)
    figures, published = result.seeds["figures"], result.seeds["published"]
    values = figures["valid_macro_f1"]["values"]
    assert result.seeds["seeds"] == [42, 43, 44]
    assert len(values) == len(figures["test_accuracy"]["values"]) == 3
    assert result.valid["macro_f1"] == max(values) == values[result.seeds["seeds"].index(published)]
    assert figures["valid_macro_f1"]["mean"] == pytest.approx(sum(values) / 3)
    assert load_model(project.folder / "models" / "linear_roberta_model_final").info.run_id == result.run_dir.name
    entries = read_results(project.folder / "results" / "model_results.json")
    assert [entry["name"] for entry in entries] == ["LinearRoBERTa_Train"] * 3
    assert {entry["seed"]: entry["test"]["accuracy"]["value"] for entry in entries} == dict(
        zip(result.seeds["seeds"], figures["test_accuracy"]["values"], strict=True)
    )
    assert [entry["model_dir"] is not None for entry in entries] == [False, False, True]
    assert entries[-1]["seed"] == published
    assert [entry["seeds"] for entry in entries] == [None, None, result.seeds]


def test_a_training_that_was_still_improving_says_by_how_much(project, capsys):
    train.run(project.config("linear.train.epochs=2", "linear.train.metric=loss"), "linear", test=False)
    said = capsys.readouterr().err
    assert re.search(
        r"validation loss was still improving in the last epoch \(from \d\.\d{4} to \d\.\d{4}\): more epochs may help",
        said,
    )


def test_a_sample_above_what_there_is_is_refused_with_the_number(project):
    with pytest.raises(DataError, match=r"100,?000"):
        train.run(project.config("lstm.train.sample_size=100000"), "lstm")


def test_training_without_a_database_says_what_to_type(make_project):
    with pytest.raises(DatabaseError) as caught:
        train.run(make_project("bare", prepare=False).config(), "lstm")
    assert "senthy data" in caught.value.hint + caught.value.message


def test_an_output_folder_that_cannot_be_written_is_reported_before_training(project):
    blocked = project.folder / "blocked"
    blocked.write_text("a file in the way")
    with pytest.raises(OutputError, match="cannot write into"):
        train.run(project.config(f"paths.models_dir={blocked}"), "lstm")
    assert not (project.folder / "results" / "runs").exists()


def test_a_full_disk_while_publishing_keeps_the_old_model_and_the_run_can_be_resumed(project, monkeypatch):
    from sentiment_hybrid import files

    config = project.config()
    before = read_info(train.run(config, "linear", test=False).model_dir)
    real = files.flush_to_disk

    def full(folder):
        if "model_final" in folder.name:
            raise OSError(28, "No space left on device")
        real(folder)

    changed = project.config("project.seed=7")
    monkeypatch.setattr(files, "flush_to_disk", full)
    with pytest.raises(OutputError, match="the disk is full"):
        train.run(changed, "linear", test=False)
    assert read_info(project.folder / "models" / "linear_roberta_model_final") == before
    monkeypatch.undo()
    result = train.run(changed, "linear", runtime=Runtime(resume=True), test=False)
    assert result.resumed
    assert read_info(result.model_dir).train_fingerprint != before.train_fingerprint


def test_a_trained_encoder_is_inside_the_model_and_differs_from_the_one_it_came_from(project):
    config = project.config("encoder.trainable_layers=1")
    result = train.run(config, "linear")
    info = read_info(result.model_dir)
    assert info.encoder_inside
    assert (result.model_dir / "encoder" / "model.safetensors").is_file()
    stores = [folder.name for folder in (project.folder / "cache" / "states").iterdir()]
    assert stores == [f"{load_encoder(config.encoder).fingerprint[:20]}-layer1-fp32"], (
        "of no other use: the trained one"
    )


def test_a_scratch_encoder_learns_its_vocabulary_and_weights_from_the_data(project):
    config = project.config(
        "encoder.name=scratch",
        "encoder.trainable_layers=all",
        "encoder.scratch={vocab_size: 400, hidden_size: 16, layers: 1, attention_heads: 2, intermediate_size: 32}",
        "linear.train.encoder_learning_rate=0.01",
    )
    result = train.run(config, "linear")
    loaded = load_model(result.model_dir)
    assert loaded.info.encoder_inside
    ids = loaded.encoder.tokenizer("lovely", add_special_tokens=False)["input_ids"]
    assert len(ids) < len("lovely"), "frequent words are in the vocabulary"
    with pytest.raises(UsageError, match="--encoder"):
        train.run(config, "linear", runtime=Runtime(encoder=project.folder))


def test_a_json_line_cut_short_by_a_kill_does_not_harm_the_metrics(project):
    run = Run.start(project.config(), "lstm", "f")
    run.append_epoch({"epoch": 1, "valid_loss": 0.5})
    with (run.folder / paths.RUN_METRICS).open("a") as file:
        file.write('{"epoch": 2, "valid')
    assert run.epochs() == [{"epoch": 1, "valid_loss": 0.5}]
    run.keep_epochs_before(2)
    assert json.loads((run.folder / paths.RUN_METRICS).read_text()) == {"epoch": 1, "valid_loss": 0.5}


def test_a_training_that_failed_before_it_began_leaves_no_run_behind(project, tmp_path):
    with pytest.raises(EncoderError):
        train.run(project.config(f"encoder.name={tmp_path}"), "linear")
    assert not list((project.folder / "results" / "runs").iterdir())


def test_a_training_on_train_and_valid_uses_all_their_rows_for_exactly_its_epochs(project, monkeypatch, capsys):
    from sentiment_hybrid.commands import test
    from sentiment_hybrid.engine.training import prepare as sessions

    trained_on = []
    real = sessions.new_trainer

    def counted(session, train, valid, **options):
        trained_on.append((len(train), valid))
        return real(session, train, valid, **options)

    monkeypatch.setattr(sessions, "new_trainer", counted)
    config = project.config("linear.train.epochs=3", "linear.train.patience=1", "linear.train.learning_rate=1e-9")
    purpose = train.Purpose("Optimize", include_valid=True, facts={"study": "s"})
    result = train.run(config, "linear", purpose=purpose)
    assert trained_on == [(198, None)], "178 of train, 20 of valid"
    info = read_info(result.model_dir)
    assert (info.train_rows, info.trained_on_valid) == (178, True)
    capsys.readouterr()
    test.evaluate(config, "linear", split="valid")
    assert "also trained on the validation rows" in capsys.readouterr().err
    epochs = Run(result.run_dir).epochs()
    assert [(facts["epoch"], facts["valid_loss"]) for facts in epochs] == [(1, None), (2, None), (3, None)]
    assert (result.best_epoch, result.valid) == (3, {})
    (entry,) = read_results(project.folder / "results" / "model_results.json")
    assert (entry["name"], entry["study"], entry["valid"]) == ("LinearRoBERTa_Optimize", "s", {})


def test_a_training_on_train_and_valid_is_resumed_as_itself_alone(project, monkeypatch):
    config = project.config()
    purpose = train.Purpose("Optimize", include_valid=True)
    real = RunCheckpoints.save

    def save_once(self, state, **options):
        real(self, state, **options)
        raise KeyboardInterrupt

    whole = train.run(config, "linear", purpose=purpose, test=False)
    expected = read_info(whole.model_dir).weights_sha256
    with monkeypatch.context() as patched:
        patched.setattr(RunCheckpoints, "save", save_once)
        with pytest.raises(KeyboardInterrupt):
            train.run(config, "linear", purpose=purpose)
    with pytest.raises(TrainingError, match="other settings or other data"):
        train.run(config, "linear", runtime=Runtime(resume=True))
    result = train.run(config, "linear", purpose=purpose, runtime=Runtime(resume=True), test=False)
    assert result.resumed
    assert read_info(result.model_dir).weights_sha256 == expected


def test_a_published_model_is_known_by_what_it_was_trained_on(project):
    config = project.config()
    result = train.run(config, "linear", purpose=train.Purpose(include_valid=True), test=False)
    data = read_info(result.model_dir).data_fingerprint
    assert is_published(config, "linear", data, include_valid=True)
    assert not is_published(config, "linear", data)
    (result.model_dir / "model.safetensors").write_bytes(b"damaged")
    assert not is_published(config, "linear", data, include_valid=True)


def test_a_lowered_budget_is_reported_and_kept(project, monkeypatch, capsys):
    from sentiment_hybrid.engine.training import trainer
    from sentiment_hybrid.models.linear import LinearHead

    config = project.config("linear.train.batch_size=64")
    compute, save = LinearHead.forward, RunCheckpoints.save

    def refuse(self, states, *rest):
        if self.training and states.shape[0] * states.shape[1] > 300:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return compute(self, states, *rest)

    def stop(self, state, **options):
        save(self, state, **options)
        raise OutputError("stopped here")

    with monkeypatch.context() as patch:
        patch.setattr(LinearHead, "forward", refuse)
        patch.setattr(RunCheckpoints, "save", stop)
        with pytest.raises(OutputError, match="stopped here"):
            train.run(config, "linear", test=False)
    said = " ".join(capsys.readouterr().err.split())
    assert "out of memory in epoch 1, step 1: token_budget 16,384 ->" in said
    (folder,) = (project.folder / "results" / "runs").iterdir()
    kept = Run(folder).config().linear.train.token_budget
    assert 64 <= kept <= 300
    assert Run(folder).config().linear.train == config.linear.train.model_copy(update={"token_budget": kept})

    budgets = []
    events = trainer.Trainer.events
    monkeypatch.setattr(trainer.Trainer, "events", lambda self: budgets.append(self.token_budget) or events(self))
    assert train.run(config, "linear", runtime=Runtime(resume=True), test=False).resumed
    assert budgets == [kept]


def test_facts_of_a_run_that_cannot_be_read_are_not_replaced(tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.note(model="linear")
    before = (run.folder / paths.RUN_META).read_text(encoding="utf-8")

    def failing(path, **options):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", failing)
        with pytest.raises(OSError, match="Too many open files"):
            run.note(compute="cpu")
    assert (run.folder / paths.RUN_META).read_text(encoding="utf-8") == before
