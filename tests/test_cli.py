"""Options become a Config and a call; every failure becomes a message on stderr and an exit code."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.main import get_command

import sentiment_hybrid
from sentiment_hybrid import cli, commands, console, distributed, options, tables
from sentiment_hybrid.commands.predict import Request
from sentiment_hybrid.config.describe import settings
from sentiment_hybrid.config.load import load_config
from sentiment_hybrid.errors import ConfigError, DataError, SenthyError, UsageError
from sentiment_hybrid.options import _PANELS, OFFLINE_VARIABLES
from sentiment_hybrid.runtime import Runtime, stop_signals


@pytest.fixture(autouse=True)
def _process_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command line sets up its process; a test must leave this one as it was."""
    for name in ("TRANSFORMERS_VERBOSITY", *OFFLINE_VARIABLES, *cli._ENVIRONMENT):
        monkeypatch.setenv(name, os.environ.get(name, ""))
        monkeypatch.delenv(name)
    stops = {number: signal.getsignal(number) for number in (*stop_signals(), signal.SIGINT)}
    stderr = sys.stderr
    yield
    sys.stderr = stderr
    for number, handler in stops.items():
        signal.signal(number, handler)


def senthy(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert isinstance(stop.value.code, int)
    return stop.value.code


@dataclass
class Spy:
    """A command that remembers how it was called, and does what it is told."""

    then: Callable[[], Any] = lambda: None
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, *args: Any, **options: Any) -> Any:
        self.args, self.options = args, options
        return self.then()


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Spy]:
    """Puts a Spy in the place of a command; what it would show is not shown."""

    def place(name: str, then: Callable[[], Any] = lambda: SimpleNamespace(failures={}, missing=())) -> Spy:
        made = Spy(then)
        module = ModuleType(name)
        module.run = made.run  # type: ignore[attr-defined]
        module.show = lambda *_: None  # type: ignore[attr-defined]
        module.Request = Request  # type: ignore[attr-defined]
        module.Purpose = SimpleNamespace  # type: ignore[attr-defined]
        monkeypatch.setattr(commands, name, module, raising=False)
        for show in ("training", "test"):
            monkeypatch.setattr(tables, show, lambda *_: None)
        return made

    return place


def raising(error: BaseException) -> Callable[[], Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


# --- options ---------------------------------------------------------------------------------------------------------


def test_data_options_are_settings(spy: Callable[..., Spy]) -> None:
    data = spy("data")
    assert (
        senthy(
            *("data", "--train-source", "a.csv", "--valid-source", "b.csv", "--test-source", "c.csv"),
            *("--text-column", "t", "--label-column", "l", "--label-map", "0=neg", "--label-map", "4 = pos"),
            *("--normalizer", "none", "--refresh", "--seed", "7", "--set", "data.table=x", "--offline"),
        )
        == 0
    )
    config = data.args[0]
    assert (config.data.train_source, config.data.valid_source, config.data.test_source) == ("a.csv", "b.csv", "c.csv")
    assert (config.data.text_column, config.data.label_column, config.data.table) == ("t", "l", "x")
    assert list(config.data.label_map.items()) == [("0", "neg"), ("4", "pos")]
    assert (config.data.normalizer, config.project.seed) == ("none", 7)
    assert data.options == {"refresh": True, "offline": True}


def test_a_label_map_may_be_yaml(spy: Callable[..., Spy]) -> None:
    data = spy("data")
    assert senthy("data", "--source", "x.csv", "--label-map", "{0: neg, 2: neutral, 4.0: pos}") == 0
    assert data.args[0].data.label_map == {"0": "neg", "2": "neutral", "4.0": "pos"}


def test_an_invalid_label_map_is_reported(spy: Callable[..., Spy], capsys: pytest.CaptureFixture[str]) -> None:
    spy("data")
    assert senthy("data", "--label-map", "neg") == 2
    assert "VALUE=LABEL" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "models", "verb", "options"),
    [
        (["train", "-m", "han", "--no-test", "--seeds", "3"], ["han"], "train", {"seeds": 3, "test": False}),
        (["optimize", "-m", "han", "--no-final", "--n-trials", "7"], ["han"], "optimize", {"final": False}),
        (["run-all", "--mode", "optimize", "--n-trials", "7"], ["lstm", "han"], "optimize", {"seeds": 1}),
    ],
    ids=["train", "optimize", "run-all"],
)
def test_a_dry_run_is_of_the_same_settings_and_calls_nothing_else(
    spy: Callable[..., Spy], arguments: list[str], models: list[str], verb: str, options: dict[str, Any]
) -> None:
    done = [spy(name) for name in ("train", "optimize", "run_all")]
    dry = spy("dry_run", list)
    assert senthy(*arguments, "--dry-run", "--encoder", "enc", "--bundle-encoder", "--device", "cpu", "--offline") == 0
    config, *rest = dry.args
    assert rest == [models, verb, Runtime("cpu", offline=True, encoder=Path("enc"), bundle_encoder=True)]
    assert ("--n-trials" in arguments) == (config.han.hpo.n_trials == 7)
    assert dry.options == options
    assert not any(one.args for one in done)


def test_bench_takes_seconds_and_a_model(spy: Callable[..., Spy]) -> None:
    bench = spy("bench")
    assert senthy("bench", "-m", "han", "--seconds", "0.5", "--encoder", "enc", "--offline") == 0
    assert bench.args[1:] == ("han", Runtime(offline=True, encoder=Path("enc")))
    assert bench.options == {"seconds": 0.5}
    assert senthy("bench", "--seconds", "0") == 2


def test_train_options_reach_the_section_of_the_model_alone(spy: Callable[..., Spy]) -> None:
    train = spy("train")
    assert (
        senthy(
            *("train", "--model", "han", "--final-epochs", "2", "--sample-size", "100", "--seeds", "3", "--no-test"),
            *("--encoder", "enc", "--bundle-encoder", "--device", "cpu", "-c", "quickstart"),
        )
        == 0
    )
    config, model, runtime = train.args
    assert model == "han"
    assert (config.han.train.epochs, config.han.train.sample_size) == (2, 100)
    assert config.lstm.train == load_config("quickstart").lstm.train
    assert runtime == Runtime("cpu", encoder=Path("enc"), bundle_encoder=True)
    assert train.options == {"seeds": 3, "test": False, "purpose": SimpleNamespace(searched=0)}


def test_optimize_options_are_settings_of_the_model_alone(spy: Callable[..., Spy]) -> None:
    optimize = spy("optimize")
    assert (
        senthy(
            *("optimize", "--model", "han", "--n-trials", "7", "--sample-size", "100", "--hpo-epochs", "3"),
            *("--timeout", "60", "--storage", "sqlite:///s.db", "--study-name", "s", "--workers", "2"),
            *("--sampler", "random", "--pruner", "hyperband", "--final-epochs", "4", "--no-final"),
            *("--encoder", "enc", "--bundle-encoder", "--device", "cpu", "--offline"),
        )
        == 0
    )
    config, model, runtime = optimize.args
    hpo = config.han.hpo
    assert model == "han"
    assert (hpo.n_trials, hpo.sample_size, hpo.epochs, hpo.timeout) == (7, 100, 3, 60.0)
    assert (hpo.storage, hpo.study_name, hpo.workers) == ("sqlite:///s.db", "s", 2)
    assert (hpo.sampler, hpo.pruner) == ("random", "hyperband")
    assert (config.han.train.epochs, config.han.train.sample_size) == (4, None)
    assert config.lstm == load_config().lstm
    assert runtime == Runtime("cpu", offline=True, encoder=Path("enc"), bundle_encoder=True)
    assert optimize.options == {"final": False}


def test_run_all_options_reach_every_chosen_model(spy: Callable[..., Spy]) -> None:
    run_all = spy("run_all")
    options = ("--epochs", "2", "--source", "sample", "--force", "--refresh", "--offline")
    assert senthy("run-all", "--model", "han", "--model", "linear", "--model", "han", *options) == 0
    config, models, runtime = run_all.args
    assert models == ["han", "linear"]
    assert (config.han.train.epochs, config.linear.train.epochs) == (2, 2)
    assert config.lstm.train.epochs == load_config().lstm.train.epochs
    assert config.data.source == "sample"
    assert run_all.options["force"]
    assert run_all.options["refresh"]
    assert runtime == Runtime(offline=True)
    assert senthy("run-all") == 0
    assert run_all.args[1] == ["lstm", "han"]


def test_run_all_fails_when_a_model_did(spy: Callable[..., Spy]) -> None:
    spy("run_all", lambda: SimpleNamespace(failures={"HANRoBERTa": DataError("x")}))
    assert senthy("run-all") == 1


def test_test_options(spy: Callable[..., Spy]) -> None:
    test = spy("test")
    assert senthy("test", "--load-model-path", "m", "--split", "valid", "--data", "f.csv", "--sample-size", "50") == 0
    config, model, _ = test.args
    assert (config.test.sample_size, model) == (50, None)
    assert test.options["load_model_path"] == Path("m")
    assert test.options["split"] == "valid"
    assert test.options["data_file"] == Path("f.csv")


def test_a_file_to_test_on_is_read_as_the_options_say(spy: Callable[..., Spy]) -> None:
    test = spy("test")
    columns = ("--text-column", "t", "--label-column", "l", "--label-map", "0=neg", "--label-map", "4=pos")
    assert senthy("test", "--data", "f.csv", *columns) == 0
    data = test.args[0].data
    assert (data.text_column, data.label_column, data.label_map) == ("t", "l", {"0": "neg", "4": "pos"})
    assert test.options["data_file"] == Path("f.csv")


def test_finetune_options(spy: Callable[..., Spy]) -> None:
    finetune = spy("finetune")
    paths_ = ("--load-model-path", "m", "--finetune-data-path", "kaggle:a/b", "--save-finetuned-model-path", "n")
    settings_ = ("--finetune-epochs", "7", "--sample-size", "50", "--trainable-layers", "2", "--layer-decay", "0.8")
    columns = ("--text-column", "t", "--label-column", "l", "--label-map", "0=neg", "--label-map", "4=pos")
    others = ("--new-labels", "--resume", "--encoder", "e", "--bundle-encoder", "--device", "cpu", "--offline")
    assert senthy("finetune", "--model", "han", *paths_, *settings_, *columns, *others) == 0
    config, model, runtime = finetune.args
    assert model == "han"
    own = config.finetune
    assert (own.epochs, own.sample_size, own.trainable_layers, own.layer_decay) == (7, 50, 2, 0.8)
    assert (config.data.text_column, config.data.label_map) == ("t", {"0": "neg", "4": "pos"})
    assert runtime == Runtime("cpu", offline=True, encoder=Path("e"), bundle_encoder=True, resume=True)
    assert finetune.options == {
        "data_file": "kaggle:a/b",
        "load_model_path": Path("m"),
        "save_path": Path("n"),
        "new_labels": True,
    }
    assert senthy("finetune", "--finetune-data-path", "f.csv", "--trainable-layers", "all") == 0
    assert finetune.args[0].finetune.trainable_layers == "all"
    assert finetune.args[1] is None


def test_predict_options(spy: Callable[..., Spy]) -> None:
    predict = spy("predict")
    assert senthy("predict", "good", "--", "-bad") == 0
    assert predict.args[0].texts == ["good", "-bad"]
    options = ("--json", "--text-column", "t", "--resume", "--labels", "a,b", "--encoder", "e", "--prefix", "p_")
    assert senthy("predict", "--input", "a.csv", "--output", "b.csv", *options) == 0
    request = predict.args[0]
    assert request.texts == []
    assert (request.input_file, request.output_file) == (Path("a.csv"), Path("b.csv"))
    assert (request.as_json, request.text_column, request.resume) == (True, "t", True)
    assert (request.labels, request.encoder, request.prefix) == (["a", "b"], Path("e"), "p_")
    several = spy("predict_shards")
    options = ("--workers", "3", "--shard", "2/8", "--finish")
    assert senthy("predict", "--input", "s3://b/*.csv", "--output", "s3://b/out", *options) == 0
    request = several.args[0]
    assert (request.input_file, request.output_file) == ("s3://b/*.csv", "s3://b/out")
    assert (request.workers, request.shard, request.finish) == (3, (2, 8), True)
    on_ray = spy("predict_ray")
    assert senthy("predict", "--input", "in/*.csv", "--output", "out", "--engine", "ray") == 0
    assert on_ray.args[0].engine == "ray"


def test_export_options(spy: Callable[..., Spy]) -> None:
    export = spy("export")
    options = ("--format", "onnx", "--quantize", "int8", "--load-model-path", "m", "--output", "e", "--encoder", "enc")
    assert senthy("export", "--model", "han", *options, "--offline") == 0
    assert export.args[1] == "han"
    assert export.options == {
        "load_model_path": Path("m"),
        "output": Path("e"),
        "quantize": "int8",
        "offline": True,
        "encoder": Path("enc"),
    }
    assert senthy("export") == 0
    assert (export.args[1], export.options["quantize"], export.options["output"]) == (None, None, None)
    assert senthy("export", "--format", "tflite") == 2
    assert senthy("export", "--quantize", "int4") == 2


def test_predict_with_a_backend(spy: Callable[..., Spy]) -> None:
    predict = spy("predict")
    assert senthy("predict", "good", "--backend", "onnx") == 0
    assert predict.args[0].backend == "onnx"
    assert senthy("predict", "good") == 0
    assert predict.args[0].backend == "auto"


def test_fetch_that_lacks_something_exits_with_1(spy: Callable[..., Spy]) -> None:
    fetch = spy("fetch", lambda: SimpleNamespace(missing=("encoder",)))
    assert senthy("fetch", "--what", "encoder", "--what", "nltk", "--offline") == 1
    assert fetch.options == {"what": ["encoder", "nltk"], "offline": True}


def test_the_libraries_are_set_offline_before_a_command_runs(spy: Callable[..., Spy]) -> None:
    seen: dict[str, str | None] = {}

    def look() -> Any:
        seen.update({name: os.environ.get(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")})

    spy("data", look)
    senthy("data")
    assert set(seen.values()) == {None}
    senthy("data", "--offline")
    assert set(seen.values()) == {"1"}


def test_a_senthy_yaml_in_the_working_directory_is_used_and_said(
    spy: Callable[..., Spy], capsys: pytest.CaptureFixture[str]
) -> None:
    data = spy("data")
    Path("senthy.yaml").write_text("project: {name: local}\n")
    assert senthy("data") == 0
    assert data.args[0].project.name == "local"
    assert "using senthy.yaml" in capsys.readouterr().err
    assert senthy("data", "-c", "default") == 0
    assert data.args[0].project.name == "senthy"
    assert capsys.readouterr().err == ""


def test_every_option_that_is_a_setting_names_a_setting_that_there_is() -> None:
    keys = {setting.key for setting in settings()}
    assert {key for panel in _PANELS.values() for key in panel} | {*cli._SAMPLED.values()} <= keys


def test_every_command_has_the_shared_options_and_help_for_each_option() -> None:
    for name, command in every_command():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--config", "--set", "--seed", "--device", "--offline", "--verbose", "--quiet"} <= options, name
        assert command.help, name
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, (name, parameter.name)


def every_command(group: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in (group or get_command(cli.app)).commands.items():
        if hasattr(command, "commands"):
            yield from every_command(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def test_all_verbs_are_there() -> None:
    names = {name for name, _ in every_command()}
    plain = {"data", "train", "optimize", "test", "finetune", "predict", "run-all", "bench", "fetch", "info"}
    assert plain | {f"config {verb}" for verb in ("show", "check", "init", "schema")} <= names
    files = {path.stem.replace("_", "-") for path in Path(commands.__file__).parent.glob("[a-z]*.py")}
    shared = {"dry-run"}  # by the verbs that train
    shared |= {"packing", "predict-rows", "predict-ray", "predict-shards"}  # of export and predict
    assert files - shared == {name.split()[0] for name in names}


GROUPS = ("", "config", "cache")


@pytest.mark.parametrize("name", [*GROUPS, *(name for name, _ in every_command())])
def test_help_fits_80_columns_and_has_every_option_the_defaults_and_two_examples(name: str) -> None:
    done = process(*name.split(), "--help", env={**os.environ, "COLUMNS": "80"})
    shown = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    assert not re.search(r" --[a-z-]+ <", shown), "values are shown as in the other options: a|b"
    words = " ".join(shown.split())
    command = dict([*every_command(), *((group, group_of(group)) for group in GROUPS)])[name]
    for below in getattr(command, "commands", {}).values():
        assert f"{below.name} {below.help.split('.')[0]}." in words
    for parameter in command.params:
        for option in parameter.opts if parameter.param_type_name == "option" else []:
            assert option in shown
        default = getattr(parameter, "default", None)
        if default not in (None, False, 0, ()) and not callable(default):
            assert f"default: {default}" in words, parameter.name
    examples = shown.partition("\nExamples:\n")[2].splitlines()
    assert len(examples) == 2
    for example in examples:
        assert example.startswith(f"  senthy {name}".rstrip() + " ") or example == f"  senthy {name}"
        parsed(shlex.split(example)[1:])


def group_of(name: str) -> Any:
    app = get_command(cli.app)
    return app.commands[name] if name else app  # type: ignore[attr-defined]


def parsed(words: list[str]) -> None:
    """Parse a command line without running it; raises if there is no such command, option or value."""
    words = words[: words.index(">")] if ">" in words else words
    command, path = get_command(cli.app), "senthy"
    while True:
        context = command.make_context(path, list(words))
        if not hasattr(command, "resolve_command"):
            return
        path, command, words = command.resolve_command(context, [*context._protected_args, *context.args])


def test_help_of_an_option_names_its_setting_and_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert senthy("train", "--help") == 0
    words = " ".join(capsys.readouterr().out.split())
    assert f"[train.epochs; default: {load_config().lstm.train.epochs}]" in words
    assert "[train.sample_size]" in words


def test_config_commands_print_to_stdout(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert senthy("config", "show", "--seed", "5", "--set", "lstm.train.epochs=2") == 0
    (tmp_path / "shown.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
    shown = load_config(tmp_path / "shown.yaml")
    assert (shown.project.seed, shown.lstm.train.epochs) == (5, 2)
    assert senthy("config", "check", "quickstart") == 0
    assert capsys.readouterr().out.endswith("quickstart.yaml: valid\n")
    assert senthy("config", "init", "--from", "quickstart") == 0
    assert capsys.readouterr().out == "wrote senthy.yaml\n"
    assert senthy("config", "check", "-q") == 0
    assert capsys.readouterr().out == "senthy.yaml: valid\n"
    assert senthy("config", "schema") == 0
    assert "han.hpo.search_space" in capsys.readouterr().out


def test_info_as_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert senthy("info", "--json", "--device", "cpu") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"versions", "machine", "files"}
    assert senthy("info", "--device", "cpu") == 0
    assert "hub cache" in capsys.readouterr().out


# --- several processes -----------------------------------------------------------------------------------------------


def one_of_two(monkeypatch: pytest.MonkeyPatch, rank: int) -> list[str]:
    """Make this one of two processes of a launcher; returns a list that grows when it waits for the other to speak."""
    waited: list[str] = []
    for name, value in {"WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(distributed, "await_message", lambda: waited.append("waited"))
    return waited


@pytest.mark.parametrize("command", [["data"], ["run-all"], ["predict", "good"], ["info"], ["config", "show"]])
def test_what_runs_in_one_process_refuses_several_and_says_so_once(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not one_of_two(monkeypatch, 0)
    assert senthy(*command) == 2
    told = capsys.readouterr().err
    assert "runs in one process, but 2 were started" in told
    assert "torchrun" in told
    waited = one_of_two(monkeypatch, 1)
    assert senthy(*command) == 2
    assert capsys.readouterr() == ("", "")
    assert waited, "the launcher would end the one that speaks"


def test_a_wrong_option_is_reported_by_one_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one_of_two(monkeypatch, 1)
    assert senthy("train", "--modle", "lstm") == 2
    assert capsys.readouterr().err == ""
    one_of_two(monkeypatch, 0)
    assert senthy("train", "--modle", "lstm") == 2
    assert "--modle" in capsys.readouterr().err


def test_train_may_run_in_several_processes_of_which_one_speaks(
    spy: Callable[..., Spy], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one_of_two(monkeypatch, 1)
    spy("train", lambda: console.say("trained"))
    assert senthy("train") == 0
    assert capsys.readouterr() == ("", "")


# --- exit codes and messages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trian"], "trian"),
        (["train", "--modl", "lstm"], "--modl"),
        (["train", "--model", "lstn"], "Did you mean lstm?"),
        (["train", "--model", "jont"], "Did you mean joint?"),
        (["test", "--model", "joint"], "is not one of lstm, han, linear"),
        (["train", "--seeds", "0"], "--seeds"),
        (["train", "--epochs", "x"], "--epochs"),
        (["test", "--split", "tset"], "--split"),
        (["finetune"], "--finetune-data-path"),
        (["finetune", "--finetune-data-path", "f", "--layer-decay", "2"], "finetune.layer_decay (--layer-decay): '2'"),
        (
            ["finetune", "--finetune-data-path", "f", "--trainable-layers", "some"],
            "finetune.trainable_layers (--trainable",
        ),
        (["data", "--device", "gpu"], "--device"),
        (["data", "-v", "-q"], "cannot be combined"),
        (["train", "--epochs", "0"], "lstm.train.epochs (--epochs): '0' is not"),
        (["optimize", "--sampler", "tep"], "did you mean `tpe`?"),
        (["optimize", "--workers", "0"], "lstm.hpo.workers (--workers): '0' is not"),
        (["data", "-c", "nope.yaml"], "no configuration file nope.yaml"),
        (["config", "check", "--set", "a.b=1"], "a (--set): no such setting"),
        (["config", "check", "--seed", "-1"], "project.seed (--seed): '-1' is not allowed"),
        (
            ["data", "--delimiter", ";;"],
            "data.delimiter (--delimiter): ';;' is not allowed; it should be one character",
        ),
    ],
)
def test_a_wrong_call_exits_with_2_and_says_why(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert senthy(*arguments) == 2
    caught = capsys.readouterr()
    assert words in caught.err
    assert caught.out == ""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DataError("no [text] column", hint="use --text-column"), 1, ["Error: no [text] column", "Hint: use --text"]),
        (ConfigError("2 problems", problems=("a: b", "[c]: d")), 2, ["Error: 2 problems", "  - a: b", "  - [c]: d"]),
        (UsageError("x"), 2, ["Error: x"]),
        (OSError(errno.ENOSPC, "No space left on device", "m.bin"), 1, ["the disk is full: m.bin", "Hint:"]),
        (
            PermissionError(errno.EACCES, "Permission denied", "/r"),
            1,
            ["Permission denied: /r", "Change the permissions"],
        ),
        (OSError(errno.EIO, "Input/output error", "f"), 1, ["Input/output error: f"]),
        (MemoryError(), 1, ["out of memory", "batch_size"]),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA"), 1, ["out of memory", "token_budget"]),
        (ZeroDivisionError("division by zero"), 1, ["unexpected ZeroDivisionError: division by zero", "with -v"]),
        (RecursionError("deep"), 1, ["unexpected RecursionError"]),
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (KeyboardInterrupt("state saved in results/runs/7; add --resume"), 130, ["state saved in results/runs/7"]),
    ],
)
def test_a_failure_is_reported_in_a_sentence(
    error: BaseException, code: int, words: list[str], spy: Callable[..., Spy], capsys: pytest.CaptureFixture[str]
) -> None:
    spy("data", raising(error))
    assert senthy("data") == code
    caught = capsys.readouterr()
    assert caught.out == ""
    for word in words:
        assert word in caught.err
    assert "Traceback" not in caught.err


def test_v_shows_the_traceback(spy: Callable[..., Spy], capsys: pytest.CaptureFixture[str]) -> None:
    for error in (ZeroDivisionError("x"), DataError("y")):
        spy("data", raising(error))
        assert senthy("data", "-v") == 1
        assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_went_away_is_no_error_message(
    spy: Callable[..., Spy], capfd: pytest.CaptureFixture[str]
) -> None:
    spy("data", raising(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert senthy("data") == 141
    assert capfd.readouterr().err == ""


def test_a_reader_of_help_that_went_away_is_no_error_message_either(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(options._Help, "format_options", raising(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert senthy("data", "--help") == 141
    assert capfd.readouterr().err == ""


def test_every_kind_of_error_has_an_exit_code_that_the_readme_knows() -> None:
    def below(kind: type[SenthyError]) -> Iterator[type[SenthyError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    assert {kind.exit_code for kind in below(SenthyError)} == {1, 2}


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert senthy("--version") == 0
    assert capsys.readouterr().out == f"senthy {sentiment_hybrid.__version__}\n"


# --- as a real process -----------------------------------------------------------------------------------------------


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "sentiment_hybrid", *arguments]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, **options)


@pytest.mark.skipif(os.name != "posix", reason="pipes that close early are reported differently elsewhere")
def test_output_into_a_closed_pipe_ends_quietly() -> None:
    command = f'"{sys.executable}" -m sentiment_hybrid config schema --json | true'
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=120, check=False)
    assert done.stderr == b""


def test_json_on_stdout_is_nothing_but_json() -> None:
    Path("senthy.yaml").write_text("project: {name: é😀}\n", encoding="utf-8")
    done = process("config", "schema", "--json", "-v")
    assert done.returncode == 0
    assert "properties" in json.loads(done.stdout)


@pytest.mark.skipif(os.name != "posix", reason="only POSIX hands undecodable arguments through")
def test_an_argument_that_is_no_text_does_not_crash_the_message() -> None:
    command = [sys.executable.encode(), b"-m", b"sentiment_hybrid", b"config", b"check", b"\xff\xfe.yaml"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 2
    assert b"\\udcff" in done.stderr
    assert b"Traceback" not in done.stderr


def test_an_ascii_terminal_gets_escapes_not_a_crash() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    Path("ü.yaml").write_text("x: 1\n", encoding="utf-8")
    done = process("config", "check", "ü.yaml", env=environment)
    assert done.returncode == 2
    assert b"\\xfc.yaml" in done.stderr


#: A command that says when it runs, and then what its input has.
WAITING = """
import signal, sys, types
from sentiment_hybrid import cli, commands
def run(*a, **k):
    print("ready", flush=True)
    sys.stdin.read()
commands.data = types.SimpleNamespace(run=run, show=print)
cli.main(["data"])
"""


def waiting(before: str = "") -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    child = subprocess.Popen([sys.executable, "-c", before + WAITING], stdin=pipe, stdout=pipe, stderr=pipe)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    return child


@pytest.mark.skipif(os.name != "posix", reason="these are no signals to handle elsewhere")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
def test_sigterm_and_a_closed_terminal_are_an_interrupt(number: str) -> None:
    child = waiting(f"import signal; signal.signal(signal.{number}, signal.SIG_DFL)\n")  # as without nohup
    child.send_signal(getattr(signal, number))
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"interrupted" in err
    assert b"Traceback" not in err


CLEANING = """
import sys, types
from sentiment_hybrid import cli, commands, console
cli._ONE_PRESS = float(sys.argv.pop())
def run(*a, **k):
    with console.progress("reading"):
        try:
            print("ready", flush=True)
            sys.stdin.readline()
        finally:
            try:
                print("cleaning up", flush=True)
                sys.stdin.readline()
            finally:
                print("cleaned up", flush=True)
commands.data = types.SimpleNamespace(run=run, show=print)
cli.main(["data"])
"""


@pytest.mark.skipif(os.name != "posix", reason="these are no signals to handle elsewhere")
@pytest.mark.parametrize("seconds", [0, 1000])
def test_a_second_interrupt_ends_a_command_that_cleans_up_unless_it_is_the_same_press(seconds: float) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", CLEANING, str(seconds)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        assert child.stdout is not None
        for line in (b"ready\n", b"cleaning up\n"):
            assert child.stdout.readline() == line
            child.send_signal(signal.SIGINT)
        out, err = child.communicate(b"\n", timeout=60)
    assert child.returncode == 130
    assert out == (b"cleaned up\n" if seconds else b"")
    assert (b"interrupted" if seconds else b"stopped at once") in err
    assert b"Traceback" not in err


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGHUP elsewhere")
def test_nohup_is_respected() -> None:
    child = waiting("import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n")
    child.send_signal(signal.SIGHUP)
    child.communicate(timeout=60)  # ends its input, and so the command
    assert child.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="streams are closed otherwise elsewhere")
@pytest.mark.parametrize(
    ("redirection", "code"),
    [("2>&-", 0), ("2>/dev/full", 0), ("2> >(true)", 0), (">&-", 0), (">/dev/full", 1), ("> >(true)", 141)],
)
def test_closed_and_full_streams_do_not_end_the_work(redirection: str, code: int, tmp_path: Path) -> None:
    if "full" in redirection and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    script = (
        "import sys, types, logging\n"
        "from pathlib import Path\n"
        "from sentiment_hybrid import cli, commands, console\n"
        "def run(*a, **k):\n"
        "    for n in range(3): console.warn('x' * 5000); print('y', file=sys.stderr)\n"
        "    logging.getLogger('a').error('z')\n"
        "    Path('done').write_text('all')\n"
        "    console.say('result')\n"
        "commands.data = types.SimpleNamespace(run=run, show=lambda _: None)\n"
        "cli.main(['data'])\n"
    )
    command = f"'{sys.executable}' -c \"$SCRIPT\" {redirection}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, timeout=60, check=False, env={**os.environ, "SCRIPT": script}
    )
    assert (tmp_path / "done").read_text() == "all"
    assert done.returncode == code
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


def test_what_a_user_typed_reaches_the_terminal_without_control_characters_and_passwords(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert senthy("data", "\x1b]0;title\x07", "postgresql://anna:geheim@host/x", "\u202egnp") == 2
    err = capsys.readouterr().err
    assert "\\x1b]0;title" in err
    assert not set(err) & {"\x1b", "\x07", "\u202e"}
    assert "geheim" not in err


def test_a_text_that_begins_with_a_dash_gets_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    assert senthy("predict", "-1 for the food") == 2
    assert "senthy predict -- " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("senthy tr", {"train"}),
        ("senthy train --model h", {"han"}),
        ("senthy train --config qu", {"quickstart"}),
        ("senthy config ", {"show", "check", "init", "schema"}),
    ],
)
def test_the_shell_completes_commands_models_and_configs(words: str, offered: set[str]) -> None:
    asked = {"_SENTHY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = process(env={**os.environ, **asked})
    assert set(done.stdout.decode().split()) == offered


def test_the_completion_script_is_for_this_command() -> None:
    done = process(env={**os.environ, "_SENTHY_COMPLETE": "source_bash"})
    assert b"_SENTHY_COMPLETE=complete_bash" in done.stdout


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [("--seeds", "abc", "a whole number"), ("--seeds", "1.5", "a whole number"), ("--seeds", "0", "at least 1")],
)
def test_a_number_that_does_not_fit_is_reported_in_plain_words(option, value, says, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", option, value])
    assert stop.value.code == 2
    assert f"Invalid value for '{option}': it should be {says}\n" in capsys.readouterr().err


def test_an_empty_config_option_is_none_at_all(capsys):
    assert senthy("config", "show", "--config", "") == 0
    assert "encoder:" in capsys.readouterr().out
