"""The hand-written suites beside the benchmarks, and what the comparison that reads them says of bad input."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SUITES = ("behaviour.tsv", "emoji.tsv", "facts.tsv", "neutral_sentences.tsv", "plain_words.tsv")


def read(name: str) -> list[dict[str, str]]:
    with (BENCHMARKS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"[\w']+", text.lower()))


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


def test_comparison_without_a_database_says_which_command_makes_one(tmp_path: Path) -> None:
    done = run_mini("--data", tmp_path, "--database", tmp_path / "none.db")
    assert done.returncode == 1
    assert "none.db" in done.stderr
    assert "senthy data" in done.stderr
    assert "Traceback" not in done.stderr


def test_comparison_refuses_a_plot_of_what_it_does_not_measure(tmp_path: Path) -> None:
    done = run_mini("--data", tmp_path, "--database", tmp_path / "none.db", "--no-speed", "--plot", tmp_path / "x.png")
    assert done.returncode == 2
    assert "leave out" in done.stderr
