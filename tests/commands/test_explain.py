"""`senthy explain` and `predict --explain`: for people, for programs, as a page, and over a whole file."""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sentiment_hybrid import tables
from sentiment_hybrid.commands import explain, predict, predict_rows
from sentiment_hybrid.data.parts import Parts
from sentiment_hybrid.engine.inference.explanations import Explanation, Word
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.engine.insight.corpus import Corpus
from sentiment_hybrid.errors import OutputError, UsageError
from sentiment_hybrid.reporting.explanations import write_explanations

from .conftest import Project

LOVED = Explanation(
    "omg <b>loved</b> it",
    "positive",
    "positive",
    0.93,
    words=(Word("omg", 0, 3, 0.2, 0.1), Word("<b>loved</b>", 4, 16, 1.2, 0.6), Word("it", 17, 19, -0.9, 0.2)),
    logit=1.0,
    baseline=0.5,
)


def test_texts_are_shown_with_their_words_readable_without_colour(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    tables.explanation(LOVED, top=2)
    shown = capsys.readouterr().out
    assert "positive 0.930" in shown
    assert "omg <b>loved</b> it" in shown
    assert "\x1b" not in shown
    assert shown.index("+1.20") < shown.index("-0.90")
    assert "++++++++++++" in shown and "---------" in shown
    assert "and 1 word with smaller weights" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_weights_that_do_not_add_up_are_called_estimates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables.explanation(dataclasses.replace(LOVED, error=0.009))
    assert "estimates" not in capsys.readouterr().out
    rough = dataclasses.replace(LOVED, error=-0.03)
    tables.explanation(rough)
    assert "The weights sum to +0.47 instead of +0.50: they are estimates." in capsys.readouterr().out
    write_explanations(tmp_path / "page.html", [{**rough.to_dict(), "words": []}], title="t", about="")
    assert "the weights are estimates" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_attention_tells_no_logit_without_the_words_which_it_does_not_compute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = dataclasses.replace(LOVED, method="attention", baseline=0.0)
    tables.explanation(one)
    assert "positive 0.930 (attention of the head)" in capsys.readouterr().out
    found = one.to_dict()
    assert found["baseline"] is None and found["error"] is None
    write_explanations(tmp_path / "page.html", [{**found, "words": []}], title="t", about="")
    assert "without the words" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_page_stands_alone_and_escapes_what_is_in_texts(tmp_path: Path) -> None:
    one = LOVED.to_dict()
    for cell, word in zip(one["words"], LOVED.words, strict=True):
        cell |= {"start": word.start, "end": word.end}
    write_explanations(tmp_path / "page.html", [one, Explanation("").to_dict()], title="<i>", about="a & b")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;loved&lt;/b&gt;</mark>" in page
    assert "<b>" not in page and "<i>" not in page
    assert "http" not in page and "<script" not in page and "src=" not in page
    words = {"positive": [["<b>", "so <b>", "1", "+1", "+1"]]}
    write_explanations(tmp_path / "page.html", (), words, title="t", about="")
    assert "so &lt;b&gt;" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_the_words_of_a_corpus_are_added_up_over_texts_and_cases() -> None:
    def one(label: str, *words: tuple[str, float]) -> Explanation:
        text = " ".join(word for word, _ in words)
        places = [text.index(word) for word, _ in words]
        return Explanation(
            text,
            label,
            label,
            0.9,
            words=tuple(
                Word(word, at, at + len(word), weight, 0.1) for (word, weight), at in zip(words, places, strict=True)
            ),
        )

    corpus = Corpus(["negative", "neutral", "positive"])
    for text in (
        one("positive", ("Good", 1.0), ("day", -0.5)),
        one("positive", ("good", 2.0), ("film", 2.5)),
        one("negative", ("good", -3.0), ("bad", 1.0)),
        Explanation(""),
    ):
        corpus.add(text)
    found = corpus.strongest(5)
    assert corpus.texts == {"negative": 1, "neutral": 0, "positive": 2}
    assert list(found) == ["negative", "positive"]
    assert [(word.word, word.texts, word.total, word.mean) for word in found["positive"]] == [
        ("good", 2, 3.0, 1.5),
        ("film", 1, 2.5, 2.5),
    ]
    assert found["positive"][0].example == "good film"
    assert [word.word for word in found["negative"]] == ["bad"]


def test_explain_gives_json_a_page_and_the_words_of_a_file(trained: Project, tmp_path: Path) -> None:
    config = trained.config()
    result = explain.run(explain.Request(["a good day", ""], config=config, html=tmp_path / "page.html"))
    good, empty = json.loads(json.dumps(result.to_dict()))
    assert good["label"] in ("negative", "positive")
    assert [word["word"] for word in good["words"]] == ["a", "good", "day"]
    assert empty["label"] is None and empty["words"] == []
    assert "good</mark>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    corpus = explain.Request(config=config, corpus=trained.folder / "texts.csv", rows=40, top=3)
    found = explain.run(corpus)
    labels = found.to_dict()["labels"]
    assert found.to_dict()["texts"] == 40
    assert set(labels) <= {"negative", "positive"}
    assert all(len(words) <= 3 and word["example"] for words in labels.values() for word in words)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "nothing to explain"),
        ({"texts": ["a"], "corpus": Path("x.csv")}, "both texts and --corpus"),
        ({"texts": ["a"], "rows": 5}, "--rows"),
        ({"texts": ["a"], "html": Path("x.pdf")}, "not the name of a page"),
        ({"texts": ["a"], "output": Path("x.jsonl")}, "--output apply to --corpus"),
        ({"corpus": Path("x.csv"), "output": Path("x.csv")}, "not JSON Lines"),
        ({"corpus": Path("x.jsonl"), "output": Path("./x.jsonl")}, "the same file as --corpus"),
        ({"corpus": Path("x.csv"), "resume": True}, "--resume needs --output"),
        ({"texts": ["a"], "label": "happy"}, "does not answer with 'happy'"),
    ],
)
def test_what_cannot_be_explained_says_why(trained: Project, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        explain.run(explain.Request(**changes, config=trained.config()))


def test_a_text_that_is_the_name_of_a_file_may_have_been_meant_otherwise(
    trained: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(trained.folder / "texts.csv")
    explain.run(explain.Request([name, "not \0 a name"], config=trained.config(), method="attention"))
    assert f"--corpus {name}" in capsys.readouterr().err
    predict.run(predict.Request([name], config=trained.config()))
    assert f"--input {name}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.parquet"])
def test_predict_adds_a_column_of_json(trained: Project, tmp_path: Path, name: str) -> None:
    import pandas as pd

    source = tmp_path / "in.csv"
    source.write_text("text,n\na good day,1\n,2\na bad day,3\n", encoding="utf-8")
    request = predict.Request(
        config=trained.config(), input_file=source, output_file=tmp_path / name, explain=True, prefix="m_"
    )
    predict.run(request)
    read = {".csv": pd.read_csv, ".jsonl": lambda path: pd.read_json(path, lines=True), ".parquet": pd.read_parquet}
    table = read[Path(name).suffix](tmp_path / name)
    assert table.columns[-1] == "m_explanation"
    first, empty, _ = (
        json.loads(cell) if isinstance(cell, str) else cell if isinstance(cell, list) else None
        for cell in table["m_explanation"]
    )
    assert [word["word"] for word in first] == ["a", "good", "day"]
    assert {"weight", "attention"} < set(first[0])
    assert empty is None


def test_predict_explains_the_label_that_it_predicts(trained: Project) -> None:
    result = predict.run(predict.Request(["a good day"], config=trained.config(), explain=True))
    (one,) = result.explanations
    assert one.label == result.predictions[0].label


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, Callable[[], object]], bytes]:
    """Run a command whole; returns what it wrote, and leaves behind what a kill after its second part would have."""

    def run(target: Path, command: Callable[[], object]) -> bytes:
        left = target.with_name("left")
        write = Parts.write

        def watched(parts: Parts, *arguments: Any) -> None:
            write(parts, *arguments)
            if parts.done == 2:
                shutil.copytree(parts.folder, left)
                (left / "00000002").write_bytes(b'{"half a')

        monkeypatch.setattr(Parts, "write", watched)
        command()
        monkeypatch.setattr(Parts, "write", write)
        whole = target.read_bytes()
        target.unlink()
        left.rename(target.with_name(f".{target.name}.parts"))
        return whole

    return run


def test_explanations_of_a_corpus_that_were_killed_are_resumed_to_the_same_file(
    trained: Project, tmp_path: Path, killed: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(explain, "_TOGETHER", 8)
    target = tmp_path / "words.jsonl"
    request = explain.Request(config=trained.config(), corpus=trained.folder / "texts.csv", rows=30, output=target)
    results = []
    whole = killed(target, lambda: results.append(explain.run(request)))
    explained = count_calls(monkeypatch)
    results.append(explain.run(dataclasses.replace(request, resume=True)))
    assert "resuming after 16 texts" in capsys.readouterr().err
    assert sum(explained) == 14
    assert target.read_bytes() == whole
    assert results[0].to_dict() == results[1].to_dict()
    assert results[0].to_dict()["texts"] == len(whole.splitlines()) == 30
    direct = explain.run(dataclasses.replace(request, output=None))
    assert direct.texts == results[0].texts
    assert {label: [word.word for word in words[:1]] for label, words in (direct.words or {}).items()} == {
        label: [word.word for word in words[:1]] for label, words in (results[0].words or {}).items()
    }


def test_a_corpus_explained_otherwise_is_not_resumed(
    trained: Project, tmp_path: Path, killed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "_TOGETHER", 8)
    target = tmp_path / "words.jsonl"
    request = explain.Request(
        config=trained.config(), corpus=trained.folder / "texts.csv", rows=20, output=target, method="attention"
    )
    killed(target, lambda: explain.run(request))
    with pytest.raises(OutputError, match="the options changed"):
        explain.run(dataclasses.replace(request, rows=21, resume=True))
    explain.run(dataclasses.replace(request, rows=21))
    assert len(target.read_bytes().splitlines()) == 21


@pytest.mark.parametrize("suffix", [".gz", ".GZ"])
def test_explanations_are_read_back_from_a_compressed_file(trained: Project, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"words.jsonl{suffix}"
    request = explain.Request(
        config=trained.config(), corpus=trained.folder / "texts.csv", rows=8, output=target, method="attention"
    )
    assert sum(explain.run(request).texts.values()) == len(gzip.decompress(target.read_bytes()).splitlines()) == 8


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of texts of each call of Predictor.explain from now on."""
    sizes: list[int] = []
    real = Predictor.explain

    def counted(predictor: Predictor, texts: Any, **options: Any) -> Any:
        sizes.append(len(texts))
        return real(predictor, texts, **options)

    monkeypatch.setattr(Predictor, "explain", counted)
    return sizes


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_predictions_with_explanations_that_were_killed_are_resumed_to_the_same_file(
    trained: Project, tmp_path: Path, killed: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(predict_rows, "_FIRST", 8)
    monkeypatch.setattr(predict_rows, "_READ", 8)
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "\n".join(f"a good day {at}" for at in range(30)), encoding="utf-8")
    target = tmp_path / name
    request = predict.Request(config=trained.config(), input_file=source, output_file=target, explain=True)
    whole = killed(target, lambda: predict.run(request))
    explained = count_calls(monkeypatch)
    predict.run(dataclasses.replace(request, resume=True))
    assert target.read_bytes() == whole
    assert 0 < sum(explained) < 30
