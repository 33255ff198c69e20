"""``senthy pretrain``: an encoder learns from texts alone, goes on after a stop, and is one that others can load."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from sentiment_hybrid import cli, paths
from sentiment_hybrid.commands import pretrain, train
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.store import open_store
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.engine.training.runs import Run
from sentiment_hybrid.errors import (
    DatabaseError,
    DataError,
    EncoderError,
    OutputError,
    SourceError,
    TrainingError,
    UsageError,
)
from sentiment_hybrid.models.encoder.hub import load_encoder, load_encoder_dir
from sentiment_hybrid.models.encoder.mlm import HEAD_FILE
from sentiment_hybrid.models.encoder.module import max_positions
from sentiment_hybrid.runtime import Runtime

from .conftest import project_paths

ANIMALS = {"cat": "mat", "dog": "rug", "cow": "hay", "hen": "egg"}


def texts_of(count: int, *, start: int = 0) -> list[str]:
    """Distinct texts, of which the end follows from the beginning."""
    names = list(ANIMALS)
    return [
        f"the {names[number % 4]} sat on the {ANIMALS[names[number % 4]]} with friend {number}"
        for number in range(start, start + count)
    ]


class Pretraining:
    """A config file of a small pretraining from scratch over a file of texts; ``config()`` loads it, with changes."""

    def __init__(self, folder: Path, texts: list[str], **settings: Any) -> None:
        folder.mkdir()
        self.folder, self.file, self.source = folder, folder / "config.yaml", folder / "texts.txt"
        self.output = folder / "models" / "made"
        self.source.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        small: dict[str, Any] = {"batch_size": 32, "epochs": 2, "learning_rate": 0.01, "precision": "fp32"}
        small |= {"base": "scratch", "source": str(self.source), "output_dir": str(self.output), "valid_size": 0.2}
        document = {
            "paths": project_paths(folder),
            "encoder": {
                "max_length": 16,
                "scratch": {
                    "vocab_size": 300, "hidden_size": 16, "layers": 1, "attention_heads": 2, "intermediate_size": 32
                },
            },
            "linear": {"train": {"batch_size": 16, "epochs": 1, "precision": "fp32"}},
            "pretrain": {**small, "warmup_steps": 0, "mask_probability": 0.3, **settings},
            "test": {"resamples": 100, "baseline": False},
        }  # fmt: skip
        self.file.write_text(yaml.safe_dump(document), encoding="utf-8")

    def config(self, *overrides: str) -> Config:
        return load_config(self.file, overrides)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Pretraining]:
    """Build one with ``make("name", texts, epochs=3)``."""
    torch.set_num_threads(1)
    return lambda name="pretraining", texts=None, **settings: Pretraining(
        tmp_path / name, texts_of(150) if texts is None else texts, **settings
    )


def digests(directory: Path) -> dict[str, str]:
    files = ("model.safetensors", HEAD_FILE, paths.TOKENIZER_JSON)
    return {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in files}


# --- what it does ----------------------------------------------------------------------------------------------------


def test_an_encoder_learns_what_its_texts_repeat(make: Callable[..., Pretraining]) -> None:
    made = make(epochs=12, batch_size=16)
    result = pretrain.run(made.config())
    losses = [facts["valid_loss"] for facts in Run(result.run_dir).epochs()]
    assert len(losses) == result.epochs == 12
    assert np.exp(losses[0]) > 2 * result.perplexity
    assert result.perplexity == pytest.approx(np.exp(min(losses)))
    assert result.perplexity < 30, "of 300 tokens"
    assert result.accuracy > 0.3
    assert result.perplexity_before is None
    assert result.texts + result.held_out_texts == 150


def test_the_directory_is_an_encoder_here_and_for_transformers(make: Callable[..., Pretraining]) -> None:
    from transformers import AutoModel, AutoTokenizer

    made = make()
    result = pretrain.run(made.config())
    assert result.encoder_dir == made.output
    loaded = load_encoder(made.config(f"encoder.name={made.output}").encoder)
    theirs, tokenizer = AutoModel.from_pretrained(made.output), AutoTokenizer.from_pretrained(made.output)
    ids = torch.tensor([loaded.tokenizer("the cat sat on the mat")["input_ids"]])
    assert tokenizer("the cat sat on the mat")["input_ids"] == ids[0].tolist()
    with torch.no_grad():
        expected = theirs.eval()(input_ids=ids).last_hidden_state
        torch.testing.assert_close(loaded.model(ids, torch.ones_like(ids)), expected, atol=1e-5, rtol=1e-4)
    facts = json.loads((made.output / paths.PRETRAINED_JSON).read_text())
    assert facts["encoder_fingerprint"] == loaded.fingerprint
    assert facts["base"] == "scratch"
    assert facts["texts"] == {"name": "texts.txt", "train": result.texts, "held_out": result.held_out_texts}
    assert facts["held_out"]["perplexity"] == result.perplexity
    assert facts["seed"] == made.config().project.seed
    assert (Run(result.run_dir).folder / paths.RUN_CURVES).stat().st_size > 0
    assert not Run(result.run_dir).checkpoints.folder.exists()


def test_a_model_can_be_trained_on_it(project: Any, make: Callable[..., Pretraining]) -> None:
    made = make()
    pretrain.run(made.config())
    result = train.run(project.config(f"encoder.name={made.output}"), "linear", test=False)
    assert (
        read_info(result.model_dir).encoder_fingerprint
        == load_encoder(made.config(f"encoder.name={made.output}").encoder).fingerprint
    )


def test_the_same_seed_gives_the_same_encoder_and_another_seed_another(make: Callable[..., Pretraining]) -> None:
    found = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        made = make(name)
        pretrain.run(made.config(f"project.seed={seed}"))
        found.append(digests(made.output))
    assert found[0] == found[1]
    assert found[0]["model.safetensors"] != found[2]["model.safetensors"]


def csv_of(folder: Path, texts: list[str]) -> Path:
    path = folder / "other.csv"
    path.write_text("".join(["id,text\n", *(f"{place},{text}\n" for place, text in enumerate(texts))]))
    return path


def json_lines_of(folder: Path, texts: list[str]) -> Path:
    path = folder / "other.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def zipped_of(folder: Path, texts: list[str]) -> Path:
    path = folder / "other.txt.gz"
    path.write_bytes(gzip.compress("".join(f"{text}\n" for text in reversed(texts)).encode()))
    return path


@pytest.mark.parametrize("write", [csv_of, json_lines_of, zipped_of])
def test_the_same_texts_in_another_file_give_the_same_encoder(make: Callable[..., Pretraining], write: Any) -> None:
    one, other = make("one", epochs=1), make("other", epochs=1)
    pretrain.run(one.config())
    source = write(other.folder, texts_of(150))
    pretrain.run(other.config(f"pretrain.source={source}"))
    assert digests(one.output) == digests(other.output)


def test_of_a_prepared_database_only_the_training_rows_are_trained_on(
    project: Any, make: Callable[..., Pretraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[list[str]] = []
    real = pretrain.tokenize

    def noted(texts: list[str], *rest: Any, **options: Any) -> Any:
        given.append(list(texts))
        return real(texts, *rest, **options)

    monkeypatch.setattr(pretrain, "tokenize", noted)
    made = make()
    database = project.folder / "data" / "tweets.db"
    result = pretrain.run(made.config("pretrain.source=null", f"paths.data_db={database}"))
    with open_store(database) as store:
        assert given == [store.read("train").texts, store.read("valid").texts]
        assert not set(given[0]) & set(store.read("test").texts)
        fingerprint = store.fingerprint
    assert (result.texts, result.held_out_texts) == (178, 20)
    assert Run(result.run_dir).meta()["data_fingerprint"] == fingerprint


def test_a_prepared_database_is_no_source_of_texts(project: Any, make: Callable[..., Pretraining]) -> None:
    database = project.folder / "data" / "tweets.db"
    with pytest.raises(UsageError, match="includes validation and test rows") as caught:
        pretrain.run(make().config(f"pretrain.source={database}", "data.table=examples"))
    assert f"paths.data_db={database}" in str(caught.value.hint)


def test_of_a_prepared_database_its_own_normaliser_is_reported(project: Any, make: Callable[..., Pretraining]) -> None:
    made = make()
    database = project.folder / "data" / "tweets.db"
    pretrain.run(made.config("pretrain.source=null", f"paths.data_db={database}", "data.normalizer=none"))
    with open_store(database) as store:
        assert json.loads((made.output / paths.PRETRAINED_JSON).read_text())["normalizer"] == store.normalizer


# --- going on from an encoder ----------------------------------------------------------------------------------------


def test_going_on_takes_over_the_output_layer_and_tells_perplexity_before_and_after(
    make: Callable[..., Pretraining],
) -> None:
    first, second = make("first"), make("second", epochs=4)
    ended = pretrain.run(first.config())
    result = pretrain.run(second.config(f"pretrain.base={first.output}"))
    assert result.perplexity_before == pytest.approx(ended.perplexity, rel=1e-4)
    assert result.perplexity < result.perplexity_before
    assert result.base == str(first.output)
    facts = json.loads((second.output / paths.PRETRAINED_JSON).read_text())
    assert facts["held_out"] == {
        "perplexity": result.perplexity, "before": result.perplexity_before, "accuracy": result.accuracy
    }  # fmt: skip
    tokenizers = [(place / paths.TOKENIZER_JSON).read_text() for place in (first.output, second.output)]
    assert json.loads(tokenizers[0])["model"] == json.loads(tokenizers[1])["model"]


def test_an_encoder_without_its_output_layer_gets_a_fresh_one_and_that_is_said(
    make: Callable[..., Pretraining], tiny_encoder_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make(base=None)
    result = pretrain.run(made.config(f"encoder.name={tiny_encoder_dir}"))
    assert "without its LM head" in " ".join(capsys.readouterr().err.split())
    assert result.perplexity_before > 100, "a fresh layer knows nothing"
    assert (made.output / HEAD_FILE).is_file()
    assert result.base == str(tiny_encoder_dir)


def test_an_encoder_can_be_pretrained_further_in_its_own_place(make: Callable[..., Pretraining]) -> None:
    made = make(epochs=1)
    ended = pretrain.run(made.config())
    result = pretrain.run(made.config(f"pretrain.base={made.output}"))
    assert result.perplexity_before == pytest.approx(ended.perplexity, rel=1e-4)
    assert json.loads((made.output / paths.PRETRAINED_JSON).read_text())["run"] == result.run_dir.name


def test_the_dropout_that_is_set_is_that_of_pretraining_alone(make: Callable[..., Pretraining]) -> None:
    made, other = make("made", dropout=0.0), make("other")
    for one in (made, other):
        pretrain.run(one.config())
    assert digests(made.output)["model.safetensors"] != digests(other.output)["model.safetensors"]
    configs = [json.loads((one.output / "config.json").read_text()) for one in (made, other)]
    assert configs[0] == configs[1]
    assert configs[0]["hidden_dropout_prob"] == 0.1


# --- stopped and gone on with ----------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from sentiment_hybrid.commands import pretrain
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
    if moment == "while" and done == saves:
        checkpoints.write_json = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    real(self, state, **options)
    if moment == "after" and done == saves:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoints.RunCheckpoints.save = save
pretrain.run(load_config(sys.argv[1]))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize(("moment", "saves", "goes_on"), [("after", 3, False), ("while", 7, True)])
def test_a_pretraining_killed_and_resumed_equals_one_never_killed_bit_for_bit(
    make: Callable[..., Pretraining], tiny_encoder_dir: Path, moment: str, saves: int, goes_on: bool
) -> None:
    settings = {"checkpoint_minutes": 0, "base": str(tiny_encoder_dir) if goes_on else "scratch"}
    whole, killed = make("whole", **settings), make("killed", **settings)
    expected = pretrain.run(whole.config())
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(killed.file), moment, str(saves)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not killed.output.exists()
    result = pretrain.run(killed.config(), runtime=Runtime(resume=True))
    assert result.resumed
    assert digests(killed.output) == digests(whole.output)
    assert (result.perplexity, result.perplexity_before) == (expected.perplexity, expected.perplexity_before)
    assert (result.perplexity_before is not None) == goes_on
    assert [facts["epoch"] for facts in Run(result.run_dir).epochs()] == [1, 2]


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
    if steps == 3:
        os.kill(os.getpid(), signal.SIGINT)
    return real(self, *arguments)
trainer.Trainer._step = step
from sentiment_hybrid.cli import main
main(sys.argv[1:])
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupt_saves_the_step_and_the_same_command_with_resume_goes_on(
    make: Callable[..., Pretraining], capsys: pytest.CaptureFixture[str]
) -> None:
    made = make()
    arguments = ["pretrain", "--config", str(made.file)]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 130, done.stderr
    assert "--resume" in done.stderr
    (folder,) = (made.folder / "results" / "runs").iterdir()
    assert Run(folder).checkpoints.load("last").progress["step"] == 3
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--resume"])
    assert stop.value.code == 0
    said = capsys.readouterr()
    assert "held-out perplexity" in said.out
    assert f"resuming {folder.name}" in " ".join(said.err.split())
    assert digests(made.output)


def stopped(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    """A pretraining that was interrupted after its first checkpoint."""
    from sentiment_hybrid.engine.training.checkpoints import RunCheckpoints

    real = RunCheckpoints.save

    def save_once(self: RunCheckpoints, state: Any, **options: Any) -> None:
        real(self, state, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunCheckpoints, "save", save_once)
        with pytest.raises(KeyboardInterrupt):
            pretrain.run(config)


def test_resuming_with_other_settings_names_them_and_with_other_texts_is_refused(
    make: Callable[..., Pretraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make()
    stopped(monkeypatch, made.config())
    with pytest.raises(TrainingError, match=r"pretrain\.epochs was 2 and is 3"):
        pretrain.run(made.config("pretrain.epochs=3", "pretrain.checkpoint_minutes=1"), runtime=Runtime(resume=True))
    made.source.write_text(made.source.read_text() + "one text more\n")
    with pytest.raises(TrainingError, match="other settings or other data"):
        pretrain.run(made.config(), runtime=Runtime(resume=True))


def test_a_resumed_run_may_be_written_to_another_place(
    make: Callable[..., Pretraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make()
    stopped(monkeypatch, made.config())
    result = pretrain.run(made.config(f"pretrain.output_dir={made.folder / 'elsewhere'}"), runtime=Runtime(resume=True))
    assert result.resumed
    assert result.encoder_dir == made.folder / "elsewhere"
    assert (result.encoder_dir / paths.PRETRAINED_JSON).is_file()
    assert not made.output.exists()


def test_resuming_without_an_unfinished_run_is_refused(make: Callable[..., Pretraining]) -> None:
    with pytest.raises(TrainingError, match="no unfinished pretrain run"):
        pretrain.run(make().config(), runtime=Runtime(resume=True))


# --- more tokens, longer windows -------------------------------------------------------------------------------------

HAPPY = [f"{text} {'😍' if number % 2 else '❤️'}" for number, text in enumerate(texts_of(150))]


def with_emoji(made: Pretraining) -> Path:
    file = made.folder / "emoji.txt"
    file.write_text("😍\n\n❤️\n❤\n", encoding="utf-8")
    return file


def test_added_tokens_of_a_scratch_encoder_are_single_ids_above_its_vocabulary(
    make: Callable[..., Pretraining],
) -> None:
    made = make(texts=HAPPY)
    pretrain.run(made.config(f"pretrain.added_tokens={with_emoji(made)}"))
    loaded = load_encoder_dir(made.output)
    assert len(loaded.tokenizer) == 302 == loaded.model.get_input_embeddings().num_embeddings
    assert loaded.tokenizer("❤️", add_special_tokens=False)["input_ids"] == [301]
    assert loaded.tokenizer("a 😍", add_special_tokens=False)["input_ids"][-1] == 300
    assert json.loads((made.output / paths.PRETRAINED_JSON).read_text())["added_tokens"] == 2


def test_an_encoder_gains_tokens_and_positions_and_goes_on_from_there(
    make: Callable[..., Pretraining], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = make("first"), make("second", texts=HAPPY)
    pretrain.run(first.config())
    grown = ("encoder.max_length=24", f"pretrain.added_tokens={with_emoji(second)}", f"pretrain.base={first.output}")
    result = pretrain.run(second.config(*grown, "pretrain.learning_rate=1e-30"))
    said = " ".join(capsys.readouterr().err.split())
    assert "2 tokens are added" in said
    assert "reads 16 tokens at once; positions for 24 are added" in said
    before, after = load_encoder_dir(first.output), load_encoder_dir(second.output)
    assert (max_positions(before.model), max_positions(after.model)) == (16, 24)
    size, pieces = len(before.tokenizer), before.tokenizer("😍", add_special_tokens=False)["input_ids"]
    assert after.tokenizer("so 😍", add_special_tokens=False)["input_ids"][-1] == size
    old, new = (encoder.model.get_input_embeddings().weight for encoder in (before, after))
    torch.testing.assert_close(new[:size], old)
    torch.testing.assert_close(new[size], old[pieces].mean(0))
    biases = [load_file(folder / HEAD_FILE)["bias"] for folder in (first.output, second.output)]
    torch.testing.assert_close(biases[1][:size], biases[0])
    assert result.perplexity == pytest.approx(result.perplexity_before, rel=1e-3), "its output layer was taken over"
    again = make("again", texts=HAPPY)
    changed = pretrain.run(again.config(*grown[1:2], f"pretrain.base={second.output}", "encoder.max_length=24"))
    assert changed.encoder_dir == again.output
    assert len(load_encoder_dir(again.output).tokenizer) == size + 2, "none is added twice"


def test_other_added_tokens_are_another_training(
    make: Callable[..., Pretraining], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(texts=HAPPY)
    file = with_emoji(made)
    with_tokens = f"pretrain.added_tokens={file}"
    stopped(monkeypatch, made.config(with_tokens))
    text = file.read_text(encoding="utf-8")
    file.write_text(text + "😡\n", encoding="utf-8")
    with pytest.raises(TrainingError, match="other settings or other data"):
        pretrain.run(made.config(with_tokens), runtime=Runtime(resume=True))
    moved = made.folder / "moved.txt"
    moved.write_text(text, encoding="utf-8")
    file.unlink()
    assert pretrain.run(made.config(f"pretrain.added_tokens={moved}"), runtime=Runtime(resume=True)).resumed


def test_an_encoder_of_another_family_cannot_grow(make: Callable[..., Pretraining], tmp_path: Path) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    made = make()
    pretrain.run(made.config())
    sizes = {"vocab_size": 300, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}
    base = tmp_path / "distil"
    DistilBertModel(DistilBertConfig(**sizes, max_position_embeddings=16, pad_token_id=1)).save_pretrained(base)
    for file in made.output.glob("token*.json"):
        shutil.copy(file, base / file.name)
    with pytest.raises(EncoderError, match="a distilbert encoder that reads at most 16 tokens"):
        pretrain.run(make("longer").config(f"pretrain.base={base}", "encoder.max_length=24"))


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (texts_of(60), r"has \d+ distinct texts? to train on"),
        (["the very same text"] * 500, r"has [01] distinct texts? to train on \(left out: 499 repeat\)"),
        (["", " ", "http"] * 100, "distinct texts"),
    ],
    ids=["few", "repeats", "nothing"],
)
def test_too_few_distinct_texts_are_refused_with_what_was_left_out(
    make: Callable[..., Pretraining], texts: list[str], told: str
) -> None:
    made = make(texts=texts)
    with pytest.raises(DataError, match=told) as caught:
        pretrain.run(made.config())
    assert "larger file" in caught.value.hint
    assert not made.output.exists()


def test_a_vocabulary_larger_than_the_texts_support_is_refused_with_one_that_fits(
    make: Callable[..., Pretraining],
) -> None:
    made = make()
    with pytest.raises(DataError, match=r"vocab_size is 8,000") as caught:
        pretrain.run(made.config("encoder.scratch.vocab_size=8000"))
    fits = caught.value.hint.split("vocab_size=")[1].split()[0]
    assert 300 < int(fits) < 1000
    assert pretrain.run(made.config(f"encoder.scratch.vocab_size={fits}")).texts


def test_an_encoder_without_a_token_that_hides_others_is_refused(
    make: Callable[..., Pretraining], tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_encoder_dir, tmp_path / "maskless"))
    settings = json.loads((base / "tokenizer_config.json").read_text())
    del settings["mask_token"]
    (base / "tokenizer_config.json").write_text(json.dumps(settings))
    made = make()
    with pytest.raises(EncoderError, match="no mask token"):
        pretrain.run(made.config(f"pretrain.base={base}"))
    assert not list((made.folder / "results" / "runs").iterdir()), "nothing was trained"


def test_an_encoder_that_is_not_there_is_reported(make: Callable[..., Pretraining]) -> None:
    with pytest.raises(EncoderError, match="no/such"):
        pretrain.run(make().config("pretrain.base=no/such/encoder"))


def test_nothing_held_out_is_refused_with_the_setting(make: Callable[..., Pretraining], project: Any) -> None:
    made = make()
    with pytest.raises(DataError, match="held out") as caught:
        pretrain.run(made.config("pretrain.valid_size=1e-9"))
    assert "pretrain.valid_size" in caught.value.hint


def test_held_out_texts_of_which_no_token_is_hidden_are_refused(make: Callable[..., Pretraining]) -> None:
    with pytest.raises(DataError, match="perplexity cannot be measured") as caught:
        pretrain.run(make(mask_probability=1e-6).config("pretrain.valid_sample_size=2"))
    assert "pretrain.valid_size" in caught.value.hint


def test_a_sample_above_what_there_is_is_refused_with_the_number(make: Callable[..., Pretraining]) -> None:
    made = make()
    with pytest.raises(DataError, match="sample size is 5,000"):
        pretrain.run(made.config("pretrain.sample_size=5000"))
    assert pretrain.run(made.config("pretrain.sample_size=100", "pretrain.epochs=1")).texts == 100


@pytest.mark.parametrize(("source", "error"), [("no_such.txt", SourceError), ("null", DatabaseError)])
def test_texts_that_are_not_there_are_reported(make: Callable[..., Pretraining], source: str, error: Any) -> None:
    with pytest.raises(error) as caught:
        pretrain.run(make().config(f"pretrain.source={source}"))
    assert caught.value.hint


def test_an_output_that_cannot_be_written_is_reported_before_training(make: Callable[..., Pretraining]) -> None:
    made = make()
    (made.folder / "blocked").write_text("a file in the way")
    with pytest.raises(OutputError, match="cannot write into"):
        pretrain.run(made.config(f"pretrain.output_dir={made.folder / 'blocked' / 'encoder'}"))
    assert not (made.folder / "results" / "runs").exists()


def test_an_output_replaces_a_pretrained_encoder_and_nothing_else(
    make: Callable[..., Pretraining], tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    made = make(epochs=1)
    (made.folder / "a file").write_text("hello")
    diary = made.folder / "diary"
    diary.mkdir()
    (diary / "today.txt").write_text("dear diary")
    foreign = Path(shutil.copytree(tiny_encoder_dir, tmp_path / "foreign"))
    for place in (made.folder / "a file", diary, foreign):
        with pytest.raises(UsageError, match="--output"):
            pretrain.run(made.config(f"pretrain.output_dir={place}"))
    assert (diary / "today.txt").read_text() == "dear diary"
    made.output.mkdir(parents=True)
    for seed in (1, 2):
        pretrain.run(made.config(f"project.seed={seed}"))
    assert json.loads((made.output / paths.PRETRAINED_JSON).read_text())["seed"] == 2
