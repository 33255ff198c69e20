"""One YAML file, --set and flags become one Config, or one error with every problem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentiment_hybrid.config import errors
from sentiment_hybrid.config.describe import settings as all_settings
from sentiment_hybrid.config.load import load_config, resolve, to_yaml
from sentiment_hybrid.config.schema import JOINT, MODEL_NAMES, Config
from sentiment_hybrid.config.syntax import dump, parse
from sentiment_hybrid.errors import ConfigError


def problems(tmp_path: Path, text: str, *overrides: str, **flags: Any) -> list[str]:
    file = tmp_path / "senthy.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file, overrides, flags=flags)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return list(caught.value.problems)


def test_flags_win_over_set_over_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("project: {name: file, seed: 1}\nlstm: {train: {epochs: 2, batch_size: 4}}\n")
    config = load_config(
        file, ["lstm.train.epochs=3", "project.seed=2"], flags={"lstm.train.epochs": 7, "project.name": None}
    )
    assert (config.lstm.train.epochs, config.lstm.train.batch_size) == (7, 4)
    assert (config.project.name, config.project.seed) == ("file", 2)
    assert config.han.train.epochs == Config().han.train.epochs


def test_setting_one_entry_of_a_search_space_keeps_the_others(tmp_path: Path) -> None:
    entry = "han.hpo.search_space.hidden={type: categorical, choices: [32, 64]}"
    space = load_config(None, [entry]).han.hpo.search_space
    assert space["hidden"].choices == (32, 64)
    assert space.keys() == Config().han.hpo.search_space.keys()
    file = tmp_path / "c.yaml"
    file.write_text("han: {hpo: {search_space: {dropout: {type: float, low: 0.1, high: 0.2}}}}\n")
    assert load_config(file, [entry]).han.hpo.search_space.keys() == {"dropout", "hidden"}


def test_parameters_of_a_search_lie_over_the_file_and_under_set_and_flags(tmp_path: Path) -> None:
    file, best = tmp_path / "c.yaml", tmp_path / "best.yaml"
    file.write_text("lstm: {head: {hidden: 32, layers: 1}, train: {learning_rate: 0.1, epochs: 2}}\n")
    best.write_text(
        "# best of 20\nlstm: {head: {hidden: 64}, train: {learning_rate: 0.01}}\nencoder: {max_length: 64}\n"
    )
    config = load_config(file, ["lstm.train.learning_rate=0.5"], params=best, params_for=["lstm", "han"])
    assert (config.lstm.head.hidden, config.lstm.head.layers) == (64, 1)
    assert (config.lstm.train.learning_rate, config.lstm.train.epochs) == (0.5, 2)
    assert config.encoder.max_length == 64


def test_setting_one_bound_of_a_range_keeps_the_rest_of_it() -> None:
    config = load_config(None, ["lstm.hpo.search_space.learning_rate.high=1e-2"])
    rate, default = (one.lstm.hpo.search_space["learning_rate"] for one in (config, Config()))
    assert (rate.low, rate.high, rate.log, default.high) == (1e-4, 1e-2, True, 5e-3)
    assert config.lstm.hpo.search_space.keys() == Config().lstm.hpo.search_space.keys()


def test_a_file_is_not_blamed_for_what_was_typed(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("lstm: {hpo: {search_space: {hidden: {type: int, low: 8, high: 16}}}}\n")
    with pytest.raises(ConfigError, match="1 error in the settings"):
        load_config(file, flags={"lstm.hpo.n_trials": 0})
    with pytest.raises(ConfigError, match="1 error in the settings") as caught:
        load_config(file, ["lstm.hpo.search_space={hidden: {type: categorical, choices: []}}"])
    assert caught.value.problems == ("lstm.hpo.search_space.hidden.choices (--set): is too short: it needs at least 1",)
    file.write_text("lstm: {hpo: {epochs: 0}}\n")
    with pytest.raises(ConfigError, match=r"2 errors in .*c\.yaml"):
        load_config(file, flags={"lstm.hpo.n_trials": 0})


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("x.low=1", "x (--set): is not a hyperparameter of this model"),
        ("hidden.low=1", "hidden.low (--set): no such setting; this type of range does not have it"),
        ("learning_rate.log=maybe", "learning_rate.log (--set): 'maybe' is not allowed; it should be true or false"),
    ],
)
def test_a_wrong_part_of_a_range_is_reported_where_it_was_typed(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("quickstart", [f"han.hpo.search_space.{override}"])
    assert caught.value.problems[0].startswith(f"han.hpo.search_space.{expected}")


@pytest.mark.parametrize(
    ("text", "message"),
    [("han: {head: {hidden: 64}}", "parameters of han, none of lstm"), ("project: {seed: 1}", "of no model")],
)
def test_parameters_of_another_model_are_refused(tmp_path: Path, text: str, message: str) -> None:
    best = tmp_path / "the best.yaml"
    best.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(None, params=best, params_for=["lstm"])
    assert "han" not in text or caught.value.hint == f"Use --model han --params '{best}'"


def test_a_missing_file_of_parameters_is_named_with_one_that_is_there(tmp_path: Path) -> None:
    gone, there = tmp_path / "best.yaml", tmp_path / "han_roberta_best_params.yaml"
    there.write_text("han: {train: {epochs: 2}}")
    for model, hint in (("han", f"Use --params {there}"), ("lstm", "Run `senthy optimize --model lstm` first.")):
        with pytest.raises(ConfigError, match="no file of parameters") as caught:
            load_config(None, params=gone, params_for=[model])
        assert caught.value.hint == hint


def test_a_wrong_parameter_is_reported_with_the_line_of_its_own_file(tmp_path: Path) -> None:
    best = tmp_path / "best.yaml"
    best.write_text("lstm:\n  head:\n    hiden: 64\n")
    with pytest.raises(ConfigError) as caught:
        load_config(None, params=best, params_for=["lstm"])
    assert f"{best}, line 3" in caught.value.problems[0]


def test_numbers_in_scientific_notation_are_numbers_quoted_or_not(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("lstm: {train: {learning_rate: 2e-5}}\nhan: {train: {learning_rate: '2e-5'}}\n")
    config = load_config(file, ["linear.train.learning_rate=3e-5"])
    rates = [config.model(name).train.learning_rate for name in ("lstm", "han", "linear")]
    assert rates == [2e-5, 2e-5, 3e-5]


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(b"\xef\xbb\xbfproject: {name: bom}\r\n")
    assert load_config(file).project.name == "bom"


def test_an_empty_file_and_a_section_with_nothing_below_it_are_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("# nothing\n")
    assert load_config(file) == Config()
    file.write_text("data:\nlstm:\n  train:\n")
    assert load_config(file) == Config()


def test_a_shipped_name_is_found_and_a_near_one_is_offered() -> None:
    assert load_config("quickstart").project.name == "quickstart"
    with pytest.raises(ConfigError) as caught:
        resolve("quikstart")
    assert "`quickstart`" in caught.value.hint


def test_a_directory_and_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("project: {name: é}".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "latin.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="not sections"):
        load_config(tmp_path / "list.yaml")


def test_all_errors_are_reported_at_once_each_with_its_line(tmp_path: Path) -> None:
    train = "lstm:\n  train:\n    epochs: 0\n    schedule: liner\n"
    text = f"projct: {{}}\n{train}han:\n  hpo:\n    search_space:\n      lr: 3\n"
    found = problems(tmp_path, text, "a", "project.seed=-1")
    joined = "\n".join(found)
    assert len(found) == 6
    assert "projct (line 1): no such setting; did you mean `project`?" in found
    assert "lstm.train.epochs (line 4): 0 is not allowed; it should be a whole number from 1 to 10,000" in found
    assert "lstm.train.schedule (line 5): 'liner' is not allowed" in joined
    assert "did you mean `linear`?" in joined
    assert "han.hpo.search_space.lr (line 9)" in joined
    assert "project.seed (--set): -1 is not allowed" in joined
    assert "--set a: write it as section.key=value" in found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lstm: {head: {layers: 2.5}}", "lstm.head.layers (line 1): 2.5 is not allowed; it should be a whole number"),
        ("lstm: {head: {layers: true}}", "true and false are not numbers"),
        ("lstm: {train: {learning_rate: false}}", "true and false are not numbers"),
        ("lstm: {head: {layers: null}}", "null is not allowed; it should be a whole number from 1 to 8"),
        ("lstm: {head: {dropout: 1}}", "1 is not allowed; it should be a number of at least 0 and below 1"),
        ("lstm: {head: {dropout: .nan}}", "nan is not allowed"),
        ("lstm: {head: {dropout: [0.1]}}", "a list is not allowed"),
        ("lstm: 3", "lstm (line 1): is a section, not 3; its settings go below it, indented: head, train, hpo"),
        ("lstm: {head: [1]}", "lstm.head (line 1): is a section, not a list"),
        ("lstm: {head: {hidden: {a: 1}}}", "a map is not allowed"),
        ("test: {baseline: maybe}", "'maybe' is not allowed; it should be true or false"),
        ("project: {name: 5}", "5 is not allowed; it should be text (put it in quotes)"),
        ("encoder: {trainable_layers: al}", "a whole number from 0 to 1,000, or all; did you mean `all`?"),
        ("encoder: {trainable_layers: -1}", "encoder.trainable_layers (line 1): -1 is not allowed"),
        ("encoder: {name: scratch}", "a scratch encoder starts from random weights: set trainable_layers to all"),
        (
            "lstm: {learning_rate: 1}",
            "lstm.learning_rate (line 1): no such setting; did you mean `lstm.train.learning_rate`?",
        ),
        ("han: {head: {attention_heads: 2}}", "did you mean `lstm.head.attention_heads`?"),
        ("encoder: {revison: x}", "encoder.revison (line 1): no such setting; did you mean `revision`?"),
        ("lstm: {head: {attention_heads: 3}}", "lstm.head (line 1): attention_heads (3) must divide 2 x hidden (512)"),
        ("lstm: {train: {class_weights: 3}}", "it should be none or balanced, or a map of text to a number above 0"),
        ("lstm: {train: {class_weights: {a: -1}}}", "lstm.train.class_weights.a (line 1): -1 is not allowed"),
        ("data: {label_map: {0: a, 1: a}}", "data.label_map (line 1): must map to at least two labels"),
        ("data: {valid_size: 0.5, test_size: 0.5}", "must leave at least 5 %"),
        ("data: {train_source: a}", "train_source and test_source must be given together"),
        ("data: {encoding: utf-9}", "'utf-9' is not an encoding"),
        ("1: 2", "1 (line 1): no such setting"),
    ],
)
def test_one_mistake_is_one_line_in_plain_words(tmp_path: Path, text: str, words: str) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1
    assert words in found[0]
    for jargon in ("Input", "constrained", "literal", "function-", "pydantic", "validat", "dict["):
        assert jargon not in found[0]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            "lr: {type: float, low: 1, high: 2}",
            "lr (line 1): is not a hyperparameter of this model; known: accumulation",
        ),
        ("learning_rat: {type: float, low: 1, high: 2}", "did you mean `learning_rate`?"),
        ("epochs: {type: int, low: 1, high: 2}", "is not a hyperparameter of this model"),
        ("layers: {type: inte, low: 1, high: 2}", "type inte does not exist; it should be float, int or categorical"),
        ("layers: {low: 1, high: 2}", "`type` is missing; it should be float, int or categorical"),
        ("layers: 5", "5 is not a range; write it as {type: float"),
        ("layers: {type: int, low: 3, high: 2}", "low (3) must be below high (2)"),
        ("layers: {type: int, low: 1}", "layers.high (line 1): is missing"),
        ("layers: {type: int, low: 1, hgh: 2, high: 3}", "layers.hgh (line 1): no such setting; did you mean `high`?"),
        ("layers: {type: int, low: 1, high: 30}", "30 is outside what the setting allows"),
        ("layers: {type: float, low: 1, high: 3}", "takes whole numbers only: use `type: int`"),
        ("dropout: {type: float, low: 0.1, high: 1.5}", "1.5 is outside what the setting allows"),
        ("dropout: {type: float, low: 0.0, high: 0.5, log: true}", "a log range must start above 0"),
        ("dropout: {type: float, low: 0.1, high: true}", "true and false are not numbers"),
        ("schedule: {type: categorical, choices: [linear, cos]}", "'cos' is outside what the setting allows"),
        ("schedule: {type: categorical, choices: []}", "schedule.choices (line 1)"),
    ],
)
def test_a_wrong_search_space_is_one_line_in_plain_words(tmp_path: Path, entry: str, words: str) -> None:
    found = problems(tmp_path, f"lstm: {{hpo: {{search_space: {{{entry}}}}}}}")
    assert len(found) == 1, found
    assert words in found[0]


def test_wrong_search_spaces_of_all_models_come_with_all_other_problems(tmp_path: Path) -> None:
    space = "{lr: {type: float, low: 1, high: 2}, dropout: {type: float, low: 1, high: 0}}"
    entry = f"{{hpo: {{n_trials: 0, search_space: {space}}}}}"
    found = problems(tmp_path, f"project: {{seed: x}}\nlstm: {entry}\nhan: {entry}\nlinear: {entry}\n")
    assert len(found) == 10


def test_an_error_in_an_option_names_the_option() -> None:
    with pytest.raises(ConfigError, match="1 error in the settings") as caught:
        load_config("default", flags={"lstm.train.epochs": "0"}, option_names={"lstm.train.epochs": "--epochs"})
    assert caught.value.problems[0].startswith("lstm.train.epochs (--epochs): '0' is not allowed")


def test_set_into_a_value_is_reported(tmp_path: Path) -> None:
    assert "`source` is a value, not a section" in problems(tmp_path, "", "data.source=a", "data.source.x=1")[0]
    assert "--set project.seed=[1: line 1" in problems(tmp_path, "", "project.seed=[1")[0]


def test_aliases_in_a_file_do_not_tie_sections_together(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("lstm: {train: &t {epochs: 2}}\nhan: {train: *t}\n")
    config = load_config(file, ["lstm.train.epochs=9"])
    assert (config.lstm.train.epochs, config.han.train.epochs) == (9, 2)


# --- sections that models share --------------------------------------------------------------------------------------


def test_what_models_share_is_in_every_model_and_joint_unless_they_say_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "train: {epochs: 2, batch_size: 8}\nhpo: {n_trials: 3}\nlstm: {train: {epochs: 7}, hpo: {workers: 2}}\n"
    )
    config = load_config(file)
    assert [config.training(name).epochs for name in (*MODEL_NAMES, JOINT)] == [7, 2, 2, 2]
    assert {config.training(name).batch_size for name in (*MODEL_NAMES, JOINT)} == {8}
    assert [(config.model(name).hpo.n_trials, config.model(name).hpo.workers) for name in MODEL_NAMES] == [
        (3, 2),
        (3, 1),
        (3, 1),
    ]
    assert config.finetune == Config().finetune
    assert config.pretrain == Config().pretrain


_train = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(1, 100),
        "learning_rate": st.floats(1e-6, 1.0),
        "patience": st.none() | st.integers(1, 9),
        "class_weights": st.sampled_from(["none", "balanced"]) | st.just({"a": 1.5}),
    },
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shared=_train, own=_train, model=st.sampled_from([*MODEL_NAMES, JOINT]))
def test_shared_settings_are_the_same_as_writing_them_into_each_model(
    tmp_path: Path, shared: dict[str, Any], own: dict[str, Any], model: str
) -> None:
    short, long = tmp_path / "short.yaml", tmp_path / "long.yaml"
    short.write_text(dump({"train": shared} | {model: {"train": own}}), encoding="utf-8")
    written_out = {name: {"train": shared | (own if name == model else {})} for name in (*MODEL_NAMES, JOINT)}
    long.write_text(dump(written_out), encoding="utf-8")
    assert load_config(short) == load_config(long)


def test_of_a_shared_search_space_each_model_takes_what_it_has_and_its_own_is_added(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "hpo:\n  search_space:\n    dropout: {type: float, low: 0.1, high: 0.2}\n"
        "    hidden: {type: int, low: 8, high: 16}\n"
        "han:\n  hpo:\n    search_space:\n      dropout: {type: categorical, choices: [0.3]}\n"
        "      layers: {type: int, low: 1, high: 2}\n"
    )
    config = load_config(file)
    spaces = {name: config.model(name).hpo.search_space for name in MODEL_NAMES}
    assert {name: list(space) for name, space in spaces.items()} == {
        "lstm": ["dropout", "hidden"],
        "han": ["dropout", "hidden", "layers"],
        "linear": ["dropout"],
    }
    assert spaces["han"]["dropout"].choices == (0.3,)


def test_set_of_a_shared_setting_wins_over_the_file_and_the_order_of_set_counts(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("lstm: {train: {epochs: 7}}\n")
    assert load_config(file, ["train.epochs=3"]).lstm.train.epochs == 3
    config = load_config(file, ["train.epochs=3", "han.train.epochs=4"], flags={"linear.train.epochs": 5})
    assert [config.training(name).epochs for name in (*MODEL_NAMES, JOINT)] == [3, 4, 5, 3]
    config = load_config(file, ["train={epochs: 2}", "hpo.search_space.hidden={type: int, low: 8, high: 16}"])
    assert config.han.train == config.lstm.train
    assert config.lstm.hpo.search_space.keys() == Config().lstm.hpo.search_space.keys()
    assert config.linear.hpo == Config().linear.hpo


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: {epochs: 0}", "train.epochs (line 1): 0 is not allowed; it should be a whole number from 1 to 10,000"),
        ("train: {epoch: 1}", "train.epoch (line 1): no such setting; did you mean `epochs`?"),
        ("train: 5", "train (line 1): is a section, not 5; its settings go below it, indented: learning_rate"),
        ("hpo: {search_space: {lr: 1}}", "hpo.search_space.lr (line 1): is not a hyperparameter of any model"),
        ("hpo: {search_space: {dropout: 1}}", "hpo.search_space.dropout (line 1): 1 is not a range"),
        ("hpo: {search_space: {layers: {type: int, low: 1}}}", "hpo.search_space.layers.high (line 1): is missing"),
    ],
)
def test_an_error_in_a_shared_section_is_reported_once_where_it_was_written(
    tmp_path: Path, text: str, expected: str
) -> None:
    found = problems(tmp_path, text)
    assert [line[: len(expected)] for line in found] == [expected]


def test_errors_of_a_model_and_of_the_shared_section_are_both_reported(tmp_path: Path) -> None:
    found = problems(tmp_path, "train:\n  epochs: 0\nlstm:\n  train:\n    epochs: 0\n", "hpo.n_trials=0")
    assert sorted(line.partition(":")[0] for line in found) == [
        "hpo.n_trials (--set)",
        "lstm.train.epochs (line 5)",
        "train.epochs (line 2)",
    ]


def test_removed_settings_do_not_exist() -> None:
    assert not errors.REMOVED.keys() & {setting.key for setting in all_settings()}


def test_a_removed_setting_and_a_renamed_config_are_refused_with_what_replaces_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(errors.REMOVED, "joint.old", errors.Removed(0, "use models"))
    assert problems(tmp_path, "joint: {old: 1}") == ["joint.old (line 1): was removed; use models"]
    file = tmp_path / "written_before.yaml"
    file.write_text("joint: {old: 0, further_repeat: 2}")
    assert load_config(file).joint.further_repeat == 2
    with pytest.raises(ConfigError, match="`seed` is now called `predecessor`"):
        load_config("seed")


# --- values ----------------------------------------------------------------------------------------------------------


def test_labels_and_values_may_be_written_as_numbers(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data: {label_map: {0: 0, 4.0: 1}}\nlstm: {train: {class_weights: {0: 1, 1: 2}}}\n")
    config = load_config(file)
    assert config.data.label_map == {"0": "0", "4.0": "1"}
    assert config.lstm.train.class_weights == {"0": 1.0, "1": 2.0}


_word = st.text(min_size=1, max_size=12)
_changes = st.fixed_dictionaries(
    {},
    optional={
        "project.name": _word,
        "project.seed": st.integers(0, 2**32 - 1),
        "paths.models_dir": st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8})?", fullmatch=True),
        "data.text_column": st.none() | _word,
        "data.label_map": st.none()
        | st.dictionaries(_word, _word, min_size=2).filter(lambda m: len(set(m.values())) > 1),
        "data.valid_size": st.floats(0.01, 0.4),
        "encoder.trainable_layers": st.just("all") | st.integers(0, 48),
        "lstm.train.learning_rate": st.floats(1e-9, 1),
        "lstm.train.clip_norm": st.none() | st.floats(1e-3, 100),
        "han.train.class_weights": st.sampled_from(["none", "balanced"])
        | st.dictionaries(_word, st.floats(0.01, 10), min_size=1),
        "han.hpo.search_space": st.just({})
        | st.builds(lambda low: {"weight_decay": {"type": "float", "low": low, "high": 1.0}}, st.floats(0, 0.99)),
        "linear.hpo.storage": st.none() | _word,
        "test.baseline": st.booleans(),
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_changes)
def test_what_to_yaml_writes_loads_to_the_same_config(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = load_config(None, flags=changes)
    file = tmp_path / "round.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(file) == config


def test_the_defaults_survive_their_own_yaml(tmp_path: Path) -> None:
    assert parse(to_yaml(Config())) == parse(dump(Config().model_dump(mode="json")))


@pytest.mark.parametrize("name", ["seed", "configs/seed.yaml"])
def test_the_old_name_of_the_predecessors_config_names_the_new_one(name):
    with pytest.raises(ConfigError, match="now called `predecessor`"):
        load_config(name)


def test_a_file_of_megabytes_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_bytes(b"# " + b"x" * (1 << 20))
    with pytest.raises(ConfigError, match="larger than 1 MB"):
        load_config(tmp_path / "large.yaml")


def test_a_key_without_a_name_is_reported_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("# comment\n&lstm:\n  head: {hidden: 16}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    (problem,) = caught.value.problems
    assert "(line 2): no such setting: a key without a name; known here: project" in problem
