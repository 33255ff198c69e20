"""The hand-written suites beside the benchmarks, and what the comparison that reads them says of bad input."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS, RECIPE = ROOT / "benchmarks", ROOT / "recipes" / "mini"
SUITES = ("behaviour.tsv", "emoji.tsv", "facts.tsv", "neutral_sentences.tsv", "plain_words.tsv")


def read(name: str) -> list[dict[str, str]]:
    with (BENCHMARKS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"[\w']+", text.lower()))


def module(folder: Path, name: str) -> ModuleType:
    """A script of a folder that is no package, imported as another script of that folder would."""
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def rows() -> ModuleType:
    return module(BENCHMARKS, "mini_rows")


@pytest.fixture(scope="module")
def figures(rows: ModuleType) -> ModuleType:
    return module(BENCHMARKS, "mini_figures")


def run_mini(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "mini.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_negation_has_two_hundred_pairs_of_equally_many_of_each_kind() -> None:
    pairs = read("negation.tsv")
    assert len(pairs) == 200
    assert set(Counter(pair["kind"] for pair in pairs).values()) == {8}


def texts_of_the_suites() -> list[str]:
    sides = [pair[side] for pair in read("negation.tsv") for side in ("negative", "positive")]
    return sides + [row["text"] for name in SUITES for row in read(name)]


def test_no_text_stands_twice_in_the_suites() -> None:
    texts = texts_of_the_suites()
    assert [text for text, count in Counter(texts).items() if count > 1] == []
    assert all(text and text == " ".join(text.split()) for text in texts)


def test_two_hundred_facts_are_of_twenty_kinds_and_begin_in_many_ways() -> None:
    rows = read("facts.tsv")
    assert len(rows) == 200
    assert set(Counter(row["kind"] for row in rows).values()) == {10}
    beginnings = Counter(" ".join(row["text"].lower().split()[:2]) for row in rows)
    assert max(beginnings.values()) <= 2


def test_hundred_emoji_and_hundred_plain_words_have_one_of_two_labels() -> None:
    for name, least in (("emoji.tsv", 30), ("plain_words.tsv", 50)):
        counts = Counter(row["label"] for row in read(name))
        assert counts.total() == 100
        assert set(counts) == {"negative", "positive"}
        assert min(counts.values()) >= least
    assert all(not re.search(r"\w|\s", row["text"]) for row in read("emoji.tsv"))
    assert all(row["text"].isalpha() for row in read("plain_words.tsv"))


def test_forty_templates_have_one_slot_each_and_sixty_terms_are_of_five_kinds() -> None:
    templates = [row["template"] for row in read("identity.tsv")]
    assert len(set(templates)) == 40
    assert all(template.count("{}") == 1 for template in templates)
    terms = read("identity_terms.tsv")
    assert len({row["term"] for row in terms}) == len(terms) == 60
    assert set(Counter(row["kind"] for row in terms).values()) == {12}


def test_sides_of_a_negation_pair_share_most_of_their_words() -> None:
    for pair in read("negation.tsv"):
        negative, positive = words(pair["negative"]), words(pair["positive"])
        differing = max((negative - positive).total(), (positive - negative).total())
        assert differing <= 4, pair
        assert (negative & positive).total() >= 1, pair


def test_behaviour_expects_both_labels_equally_often() -> None:
    rows = read("behaviour.tsv")
    counts = Counter(row["expected"] for row in rows)
    assert set(counts) == {"negative", "positive"}
    assert counts["negative"] == counts["positive"]
    assert len(rows) >= 200


def test_rows_of_an_invariance_stand_in_pairs_that_expect_the_same() -> None:
    kinds: dict[str, list[dict[str, str]]] = {}
    for row in read("behaviour.tsv"):
        if row["kind"].startswith("invariance"):
            kinds.setdefault(row["kind"], []).append(row)
    assert len(kinds) >= 3
    for rows in kinds.values():
        for plain, changed in zip(rows[::2], rows[1::2], strict=True):
            assert plain["expected"] == changed["expected"]
            shared = (words(plain["text"]) & words(changed["text"])).total()
            assert shared >= words(plain["text"]).total() - 2, (plain, changed)


def test_no_sentence_of_the_suites_stands_in_a_made_up_text(rows: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(RECIPE)
    sentences = {tuple(spoken(text)) for text in [*texts_of_the_suites(), *rows.identity()]}
    held_out = {one for one in sentences if len(one) >= 3}  # emoji and single words may be trained on
    made_up = [text for text, _ in module(RECIPE, "made_up").texts(10_000, 0)]
    assert len(made_up) > 1000
    assert sorted(contained(made_up, held_out)) == []


def spoken(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def contained(texts: Iterable[str], sentences: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Sentences that stand in a text, word by word."""
    lengths, found = {len(one) for one in sentences}, set()
    for text in texts:
        said = spoken(text)
        runs = (tuple(said[at : at + size]) for size in lengths for at in range(len(said) - size + 1))
        found |= sentences.intersection(runs)
    return found


def test_article_fits_the_identity_term(rows: ModuleType) -> None:
    assert rows.with_term("A {} cook met a nurse", "Asian") == "An Asian cook met a nurse"
    assert rows.with_term("we met a {} cook", "gay") == "we met a gay cook"
    assert len(set(rows.identity())) == 2400


def test_pair_is_right_where_answers_and_polarity_are_in_order(rows: ModuleType, figures: ModuleType) -> None:
    negative, neutral, positive = [0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]
    probabilities = np.array([negative, neutral, neutral, positive, neutral, neutral, positive, negative])
    none = rows.Rows([], np.empty(0))
    assert figures.pairs_right(none, probabilities).tolist() == [True, True, False, False]
    mild = np.array([[0.3, 0.5, 0.2], [0.2, 0.5, 0.3]])
    assert figures.directed(none, mild).tolist() == [True]
    assert figures.pairs_right(none, mild).tolist() == [False]


def test_two_classes_are_renormalised_over_their_rows(rows: ModuleType, figures: ModuleType) -> None:
    sample = rows.Rows(["a", "b", "c"], np.array([0, 1, 2]))
    labels, probabilities = figures.restricted(
        sample, np.array([[0.2, 0.7, 0.1], [0.0, 1.0, 0.0], [0.1, 0.6, 0.3]]), [0, 2]
    )
    assert labels.tolist() == [0, 1]
    assert probabilities == pytest.approx(np.array([[2 / 3, 1 / 3], [1 / 4, 3 / 4]]))


def test_neutral_answer_is_wrong_for_a_word_of_sentiment_unless_two_classes_are_asked(
    rows: ModuleType, figures: ModuleType
) -> None:
    sample, probabilities = rows.Rows(["a", "b"], np.array([0, 2])), np.array([[0.3, 0.6, 0.1], [0.1, 0.2, 0.7]])
    assert figures.balanced([0, 1, 2])(sample, probabilities).value == 0.5
    assert figures.balanced([0, 2])(sample, probabilities).value == 1.0


def test_model_that_is_worse_on_one_set_only_is_said_to_be_below_on_that_one(
    rows: ModuleType, figures: ModuleType
) -> None:
    labels = np.tile([0, 1, 2], 200)
    sample, every = rows.Rows([""] * 600, labels), np.eye(3)[labels]
    often_wrong = every.copy()
    often_wrong[::4] = np.eye(3)[(labels[::4] + 1) % 3]
    found = figures.against([("same", sample, every, every), ("worse", sample, often_wrong, every)])
    assert found["below"] == ["worse"]
    assert found["sets"]["same"]["value"] == 0.0
    assert found["sets"]["worse"]["high"] < -0.15
    assert found["mean"]["value"] == pytest.approx(found["sets"]["worse"]["value"] / 2)


def test_holm_multiplies_by_the_number_that_is_left_and_never_falls(figures: ModuleType) -> None:
    found = figures.holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert found == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})


def test_quote_that_is_never_closed_swallows_no_tweet(rows: ModuleType, tmp_path: Path) -> None:
    for folder in ("semeval", "airline"):
        (tmp_path / folder).mkdir()
    tweets = 'label\ttext\npositive\t"What a day\nneutral\tit is ten\nnegative\t"no" she said\n'
    (tmp_path / "semeval" / "valid.tsv").write_text(tweets, encoding="utf-8")
    (tmp_path / "airline" / "Tweets.csv").write_text('text,airline_sentiment\n"a\nb",neutral\n', encoding="utf-8")
    found = rows.others(tmp_path)
    assert found["semeval"].texts == ['"What a day', "it is ten", '"no" she said']
    assert found["airline"].texts == ["a\nb"]


def test_words_on_which_lexicons_disagree_are_left_out(rows: ModuleType) -> None:
    one = rows.of_table([("Fine", "positive"), ("sick", "negative"), ("odd", "neutral")])
    two = rows.of_table([("fine", "positive"), ("sick", "positive"), ("bleak", "negative")])
    found = rows.words_of([one, two])
    assert dict(zip(found.texts, found.labels.tolist(), strict=True)) == {"fine": 2, "bleak": 0}


def test_comparison_measures_the_shipped_models_on_a_small_recipe(tmp_path: Path) -> None:
    for name in ("train", "valid", "tweets_test"):
        write_recipe(tmp_path / f"{name}.tsv", seed=len(name))
    done = run_mini(
        "--recipe", tmp_path, "--no-speed", "--threads", 1, "--cache", tmp_path, "--json", tmp_path / "out.json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    measured = {one["name"]: one["values"] for one in report["figures"]}
    assert {"behaviour", "plainest words", "facts that are neutral", "lexicon words: balanced accuracy"} <= set(
        measured
    )
    assert measured["plainest words"]["mini-han"]["value"] > 0.9
    assert set(report["sets"]["rows"]) == {"set: reviews"}
    assert report["sets"]["macro_f1"]["lr"]["set: reviews"] == 1.0


def write_recipe(path: Path, *, seed: int) -> None:
    """Reviews of three labels, words of a lexicon, and made-up texts of wrong labels that no rival may learn from."""
    dice = np.random.default_rng(seed)
    says = {"negative": ("awful", "bad"), "neutral": ("blue", "round"), "positive": ("great", "good")}
    lines = ["text\tlabel\tset"]
    for label, (first, second) in says.items():
        lines += [f"the {dice.choice(['book', 'film', 'pen'])} {n} is {first}\t{label}\treviews" for n in range(120)]
        lines += [f"{second}\t{label}\tlex_vader", f"{first} {second}\tpositive\tmade-up: pairs"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_comparison_without_a_recipe_says_which_file_it_misses(tmp_path: Path) -> None:
    done = run_mini("--recipe", tmp_path)
    assert done.returncode == 1
    assert "valid.tsv" in done.stderr
    assert "Traceback" not in done.stderr


def test_comparison_refuses_a_plot_of_what_it_does_not_measure(tmp_path: Path) -> None:
    done = run_mini("--recipe", tmp_path, "--data", tmp_path, "--no-speed", "--plot", tmp_path / "x.png")
    assert done.returncode == 2
    assert "leave out" in done.stderr
