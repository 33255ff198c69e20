"""`senthy predict`: every format in and out, row by row, with nothing lost and nothing half written."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentiment_hybrid import cli, paths
from sentiment_hybrid.commands import predict, predict_rows
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data import normalizers, parts
from sentiment_hybrid.data.sources import Batch
from sentiment_hybrid.engine.inference import predictor as engine
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.errors import (
    ColumnError,
    DataError,
    ModelError,
    OutputError,
    SenthyError,
    SourceError,
    UsageError,
)
from sentiment_hybrid.files import locked

from .conftest import TEXTS

ADDED = ["prediction", "score", "p_negative", "p_positive"]


def configured(**sections: dict[str, Any]) -> Config:
    """The defaults but for these; in float32, where a prediction is the same among any neighbours."""
    return Config.model_validate({"linear": {"train": {"precision": "fp32"}}, **sections})


@pytest.fixture(scope="module")
def expected(model_dir: Path) -> dict[str, engine.Prediction]:
    predictor = Predictor(model_dir, device="cpu", precision="fp32")
    return dict(zip(TEXTS, predictor.predict(TEXTS), strict=True))


@pytest.fixture
def run(model_dir: Path) -> Callable[..., predict.PredictResult]:
    def call(*texts: str, **options: Any) -> predict.PredictResult:
        return predict.run(
            predict.Request(texts, **{"config": configured(), "model_dir": model_dir, "device": "cpu", **options})
        )

    return call


# --- reading and writing every format, for the tests alone ------------------------------------------------------------


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows in the format of a suffix, written without the code under test."""
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if name.endswith(".db"):
        with sqlite3.connect(path) as connection:
            connection.execute(f"CREATE TABLE tweets ({', '.join(rows[0])})")
            connection.executemany(
                f"INSERT INTO tweets VALUES ({', '.join('?' * len(rows[0]))})", [list(row.values()) for row in rows]
            )
        connection.close()
        return path
    text = io.StringIO()
    if name.endswith(".jsonl"):
        text.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif name.endswith(".tsv"):
        text.writelines("\t".join(map(str, row)) + "\n" for row in [list(rows[0]), *(r.values() for r in rows)])
    else:
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        return pq.read_table(path).to_pylist()
    if name.endswith(".db"):
        connection = sqlite3.connect(path)
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("SELECT * FROM predictions")]
        connection.close()
        return rows
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    return parse(text, name.rpartition(".")[2])


def parse(text: str, kind: str) -> list[dict[str, Any]]:
    if kind == "jsonl":
        return [json.loads(line) for line in text.splitlines()]
    if kind == "tsv" and not text.startswith('"'):
        header, *lines = [line.split("\t") for line in text.split("\n")[:-1]]
        return [dict(zip(header, line, strict=True)) for line in lines]
    delimiter = "\t" if kind == "tsv" else ","
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))


def assert_labelled(
    rows: list[dict[str, Any]], texts: list[str], expected: dict[str, engine.Prediction], *, column: str = "text"
) -> None:
    """Every row in its place, with the prediction of its own text."""
    assert [row[column] for row in rows] == texts
    for row in rows:
        one = expected[row[column]]
        if one.label is None:
            assert all(row[name] in (None, "") for name in ADDED)
            continue
        assert row["prediction"] == one.label
        assert float(row["score"]) == pytest.approx(one.score, abs=2e-5)
        for label, probability in one.probabilities.items():
            assert float(row[f"p_{label}"]) == pytest.approx(probability, abs=2e-5)


FORMATS = ["csv", "csv.gz", "tsv", "tsv.gz", "jsonl", "jsonl.gz", "parquet", "db"]
PAIRS = [*((one, one) for one in FORMATS), *((one, "jsonl") for one in FORMATS), *(("parquet", one) for one in FORMATS)]


@pytest.mark.parametrize(("ending_in", "ending_out"), sorted(set(PAIRS)))
def test_every_format_in_becomes_every_format_out(
    ending_in: str,
    ending_out: str,
    run: Callable[..., predict.PredictResult],
    expected: dict[str, engine.Prediction],
    tmp_path: Path,
) -> None:
    # A tab has no place in an unquoted tsv.
    texts = [text for text in TEXTS if "\t" not in text] * 3
    rows = [{"id": number, "text": text, "by": f"user {number}"} for number, text in enumerate(texts)]
    source = write_rows(tmp_path / f"in.{ending_in}", rows)
    target = tmp_path / "new" / f"out.{ending_out}"
    result = run(input_file=source, output_file=target)
    labelled = read_rows(target)
    assert list(labelled[0]) == ["id", "text", "by", *ADDED]
    assert_labelled(labelled, texts, expected)
    assert [str(row["id"]) for row in labelled] == [str(row["id"]) for row in rows]
    assert [row["by"] for row in labelled] == [row["by"] for row in rows]
    assert (result.rows, result.empty, result.output) == (len(texts), 3, target)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_the_two_labels_both_occur(expected: dict[str, engine.Prediction]) -> None:
    assert {one.label for one in expected.values()} == {"negative", "positive", None}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_other_columns_keep_their_types(ending: str, run: Callable[..., predict.PredictResult], tmp_path: Path) -> None:
    rows = [
        {"id": 2**40, "text": "good", "share": 0.5, "ok": True, "tags": ["a", "b"], "more": {"x": 1}, "none": None},
        {"id": -1, "text": "bad", "share": 1.0, "ok": False, "tags": [], "more": {"x": 2}, "none": None},
    ]
    target = tmp_path / f"out.{ending}"
    run(input_file=write_rows(tmp_path / f"in.{ending}", rows), output_file=target)
    labelled = [{name: row[name] for name in rows[0]} for row in read_rows(target)]
    assert labelled == rows
    assert isinstance(read_rows(target)[0]["score"], float)


def test_parquet_types_that_python_does_not_have_are_kept(
    run: Callable[..., predict.PredictResult], tmp_path: Path
) -> None:
    table = pa.table(
        {
            "text": pa.array(["good", "bad"], pa.large_string()),
            "when": pa.array([0, 1_500], pa.timestamp("ms", tz="UTC")),
            "kind": pa.array(["a", "a"]).dictionary_encode(),
            "small": pa.array([1, None], pa.int8()),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    run(input_file=tmp_path / "in.parquet", output_file=tmp_path / "out.parquet")
    labelled = pq.read_table(tmp_path / "out.parquet")
    assert labelled.select(table.column_names).to_pylist() == table.to_pylist()
    for name in ("text", "when", "small"):
        assert labelled.schema.field(name).type == table.schema.field(name).type


def test_json_objects_keep_exactly_their_keys(
    run: Callable[..., predict.PredictResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "chunk", 2)
    lines = [{"text": "good"}, {"text": "bad", "a": 1}, {"a": None}, {"late": [1], "text": "film"}, {"text": None}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    run(input_file=tmp_path / "in.jsonl", output_file=tmp_path / "out.jsonl")
    labelled = read_rows(tmp_path / "out.jsonl")
    assert [{key: row[key] for key in row if key not in ADDED} for row in labelled] == lines
    assert [row["prediction"] is None for row in labelled] == [False, False, True, False, True]


def test_a_stream_whose_keys_turn_up_late_is_no_table(
    run: Callable[..., predict.PredictResult], stdin: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_rows, "_READ", 1)
    stdin(b'{"text": "good"}\n{"text": "bad", "late": 1}\n')
    with pytest.raises(OutputError, match="late") as caught:
        run(file_format="jsonl", output_file=Path("out.csv"))
    assert ".jsonl" in caught.value.hint
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(("ending", "shown"), [("csv", "csv"), ("tsv", "tsv"), ("jsonl", "jsonl"), ("parquet", "csv")])
def test_stdout_speaks_the_format_of_the_input(
    ending: str,
    shown: str,
    run: Callable[..., predict.PredictResult],
    expected: dict[str, engine.Prediction],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = ["good film", "what a day", "ça 😀 food"]
    run(input_file=write_rows(tmp_path / f"in.{ending}", [{"text": text} for text in texts]))
    assert_labelled(parse(capsys.readouterr().out, shown), texts, expected)


def test_json_is_one_object_a_line(
    run: Callable[..., predict.PredictResult],
    expected: dict[str, engine.Prediction],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(*TEXTS, as_json=True)
    assert_labelled(parse(capsys.readouterr().out, "jsonl"), TEXTS, expected)


def test_arguments_come_back_as_predictions(
    run: Callable[..., predict.PredictResult], expected: dict[str, engine.Prediction], tmp_path: Path
) -> None:
    result = run(*TEXTS)
    assert result.texts == tuple(TEXTS)
    assert [one.label for one in result.predictions] == [expected[text].label for text in TEXTS]
    result = run(*TEXTS, output_file=tmp_path / "out.csv")
    assert result.predictions == ()
    assert_labelled(read_rows(tmp_path / "out.csv"), TEXTS, expected)


def test_an_argument_that_is_no_utf8_is_labelled(
    run: Callable[..., predict.PredictResult], capsys: pytest.CaptureFixture[str]
) -> None:
    run(os.fsdecode(b"good \xff day"), as_json=True)
    assert json.loads(capsys.readouterr().out)["text"] == "good \ufffd day"


def test_the_text_column_may_be_named(
    run: Callable[..., predict.PredictResult], expected: dict[str, engine.Prediction], tmp_path: Path
) -> None:
    rows = [{"text": "elsewhere", "review": text} for text in TEXTS]
    source = write_rows(tmp_path / "in.csv", rows)
    run(input_file=source, output_file=tmp_path / "out.csv", text_column="review")
    assert_labelled(read_rows(tmp_path / "out.csv"), TEXTS, expected, column="review")
    config = configured(data={"text_column": "review"})
    run(input_file=source, output_file=tmp_path / "out.csv", config=config)
    assert_labelled(read_rows(tmp_path / "out.csv"), TEXTS, expected, column="review")


@pytest.mark.parametrize("to_stdout", [False, True])
def test_a_file_that_changes_while_it_is_labelled_is_an_error(
    to_stdout: bool, run: Callable[..., predict.PredictResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "in.csv", [{"text": text} for text in TEXTS])
    target = tmp_path / "out.csv"
    target.write_text("what was there")
    texts_of = predict_rows.texts_of

    def while_it_grows(*args: Any, **options: Any) -> list[str | None]:
        # Rows were read, and the reader has not yet been asked for more of them.
        with source.open("a") as file:
            file.write("one more\n")
        return texts_of(*args, **options)

    monkeypatch.setattr(predict_rows, "texts_of", while_it_grows)
    with pytest.raises(SourceError, match=r"in\.csv changed while it was read"):
        run(input_file=source, output_file=None if to_stdout else target)
    assert target.read_text() == "what was there"


def test_a_missing_column_names_those_found_and_the_nearest(
    run: Callable[..., predict.PredictResult], tmp_path: Path
) -> None:
    source = write_rows(tmp_path / "in.csv", [{"id": 1, "review_body": "good"}])
    with pytest.raises(ColumnError) as caught:
        run(input_file=source, text_column="reviewbody")
    assert "'id', 'review_body'" in caught.value.message
    assert "'review_body'" in caught.value.hint


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "db"])
@pytest.mark.parametrize("name", ["prediction", "p_negative"])
def test_columns_of_the_names_that_are_added_are_kept(
    name: str, ending: str, run: Callable[..., predict.PredictResult], tmp_path: Path
) -> None:
    source = write_rows(tmp_path / f"in.{ending}", [{"text": "good", name: "x"}])
    run(input_file=source, output_file=tmp_path / "out.csv")
    run(input_file=source, output_file=tmp_path / "own.csv", prefix="m1_")
    for file, prefix in (("out.csv", "senthy_"), ("own.csv", "m1_")):
        (row,) = read_rows(tmp_path / file)
        assert list(row) == ["text", name, *(prefix + added for added in ADDED)]
        assert row[name] == "x"
    with pytest.raises(ColumnError, match=name) as caught:
        run(input_file=source, output_file=tmp_path / "no.csv", prefix="")
    assert "--prefix" in caught.value.hint
    assert not (tmp_path / "no.csv").exists()


def test_a_name_that_is_added_may_not_come_late(run: Callable[..., predict.PredictResult], tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "good"}\n' * 10_001 + '{"text": "bad", "score": 1}\n', encoding="utf-8")
    with pytest.raises(ColumnError, match="'score', which a prediction adds") as caught:
        run(input_file=source, output_file=tmp_path / "out.jsonl")
    assert "--prefix" in caught.value.hint


def test_a_file_of_plain_lines_is_labelled_line_by_line(
    run: Callable[..., predict.PredictResult], expected: dict[str, engine.Prediction], tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    run(input_file=tmp_path / "in.txt", output_file=tmp_path / "out.csv")
    assert_labelled(read_rows(tmp_path / "out.csv"), TEXTS, expected)


def test_a_file_whose_suffix_does_not_tell_needs_a_format(
    run: Callable[..., predict.PredictResult], expected: dict[str, engine.Prediction], tmp_path: Path
) -> None:
    source = write_rows(tmp_path / "in.csv.gz", [{"text": text} for text in TEXTS]).rename(tmp_path / "odd.download")
    with pytest.raises(SourceError, match=r"odd\.download"):
        run(input_file=source)
    run(input_file=source, file_format="csv", output_file=tmp_path / "out.csv")
    assert_labelled(read_rows(tmp_path / "out.csv"), TEXTS, expected)


# --- standard input --------------------------------------------------------------------------------------------------


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def put(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))

    return put


@pytest.mark.parametrize("how", [{}, {"input_file": Path("-")}, {"texts": ("-",)}])
def test_a_pipe_is_lines_unless_a_format_is_given(
    how: dict[str, Any],
    run: Callable[..., predict.PredictResult],
    expected: dict[str, engine.Prediction],
    stdin: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    stdin("\n".join(TEXTS).encode())
    run(*how.pop("texts", ()), **how)
    assert_labelled(parse(capsys.readouterr().out, "csv"), TEXTS, expected)


@pytest.mark.parametrize("header", ["text", '"Tweet"', "review_text\r"])
def test_the_header_of_a_csv_with_one_column_is_no_text(
    run: Callable[..., predict.PredictResult],
    expected: dict[str, engine.Prediction],
    stdin: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    header: str,
) -> None:
    caplog.set_level("INFO")
    content = io.StringIO()
    csv.writer(content).writerows([text] for text in TEXTS)
    name = header.strip('"\r')
    for file_format, rows in ((None, len(TEXTS)), ("lines", content.getvalue().count("\n") + 1)):
        stdin(f"{header}\n{content.getvalue()}".encode())
        assert run(file_format=file_format).rows == rows
        out = capsys.readouterr().out
        assert ("is the header of a csv (--format lines reads it as a text)" in caplog.text) == (file_format is None)
        caplog.clear()
        if file_format is None:
            found = list(csv.DictReader(io.StringIO(out)))
            assert [row[name] for row in found] == TEXTS
            assert [row["prediction"] or None for row in found] == [expected[text].label for text in TEXTS]


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_a_pipe_may_hold_a_table(
    kind: str,
    run: Callable[..., predict.PredictResult],
    expected: dict[str, engine.Prediction],
    stdin: Callable[[bytes], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = [text for text in TEXTS if "\t" not in text]
    stdin(write_rows(tmp_path / f"in.{kind}", [{"text": text, "id": 1} for text in texts]).read_bytes())
    run(file_format=kind)
    assert_labelled(parse(capsys.readouterr().out, kind), texts, expected)


@pytest.mark.parametrize(("kind", "content"), [("lines", b""), ("csv", b"text,id\n"), ("jsonl", b"\n")])
def test_no_rows_in_are_no_rows_out(
    kind: str,
    content: bytes,
    run: Callable[..., predict.PredictResult],
    stdin: Callable[[bytes], None],
    tmp_path: Path,
) -> None:
    stdin(content)
    assert run(file_format=kind, output_file=tmp_path / "out.csv").rows == 0
    assert set(ADDED) <= set((tmp_path / "out.csv").read_text(encoding="utf-8").strip().split(","))


def test_bytes_that_are_no_text_name_their_line(
    run: Callable[..., predict.PredictResult], stdin: Callable[[bytes], None]
) -> None:
    stdin(b"good\nbad \xff\n")
    with pytest.raises(SourceError, match="line 2"):
        run()


def senthy(*arguments: str, model_dir: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "sentiment_hybrid", "predict", "--load-model-path", str(model_dir), *arguments]
    command += ["--set", "linear.train.precision=fp32"]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, **options)


def test_a_real_pipe_through_a_real_process(model_dir: Path, expected: dict[str, engine.Prediction]) -> None:
    done = senthy("--json", "--device", "cpu", model_dir=model_dir, input="\n".join(TEXTS).encode())
    assert done.returncode == 0, done.stderr.decode()
    assert_labelled(parse(done.stdout.decode(), "jsonl"), TEXTS, expected)
    assert "1 text (empty after cleaning)" in done.stderr.decode()


@pytest.mark.skipif(os.name != "posix", reason="other systems tell a reader that went away otherwise")
def test_a_reader_that_goes_away_ends_it_quietly(model_dir: Path, tmp_path: Path) -> None:
    lines = tmp_path / "in.txt"
    lines.write_text("".join(f"good film {number} and words to fill a pipe\n" for number in range(9_000)))
    command = [sys.executable, "-m", "sentiment_hybrid", "predict", "--load-model-path", str(model_dir)]
    with subprocess.Popen(
        [*command, "--device", "cpu", "--input", str(lines)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith(b"text,prediction")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.skipif(os.name != "posix", reason="other systems do not say whether a pipe holds something")
def test_a_text_from_a_pipe_is_answered_before_the_next_one_comes(
    run: Callable[..., predict.PredictResult],
    expected: dict[str, engine.Prediction],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    answers: list[str] = []
    asked = iter(["ça 😀 food", "what a day", "good film"])

    class Output(io.StringIO):
        def flush(self) -> None:
            """Each answer is the reason for the next question; without an answer, this would never end."""
            if self.getvalue() and len(answers) < 3:
                answers[:] = [row["prediction"] for row in parse(self.getvalue(), "csv")]
                os.write(writing, f"{next(asked, '')}\n".encode()) if len(answers) < 3 else os.close(writing)

    monkeypatch.setattr(sys, "stdout", Output())
    os.write(writing, f"{next(asked)}\n".encode())
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert run().rows == 3
    assert answers == [expected[text].label for text in ("ça 😀 food", "what a day", "good film")]


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of texts of each group that is prepared."""
    found: list[int] = []
    prepare = Predictor.prepare

    def measured(self: Predictor, texts: list[str | None], **options: Any) -> Any:
        found.append(len(texts))
        return prepare(self, texts, **options)

    monkeypatch.setattr(Predictor, "prepare", measured)
    return found


def stop_after(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt the run after this many groups of four texts."""
    calls = itertools.count()
    compute = Predictor.compute

    def stopped(self: Predictor, prepared: engine.PreparedTexts, **options: Any) -> Any:
        if next(calls) == groups:
            raise KeyboardInterrupt
        return compute(self, prepared, **options)

    monkeypatch.setattr(Predictor, "chunk", 4)
    monkeypatch.setattr(Predictor, "compute", stopped)


def test_a_full_pipe_is_answered_in_few_texts_at_first_and_then_in_many(
    stdin: Callable[[bytes], None],
    run: Callable[..., predict.PredictResult],
    monkeypatch: pytest.MonkeyPatch,
    sizes: list[int],
) -> None:
    monkeypatch.setattr(predict_rows, "_PATIENCE", 60.0)
    stdin(b"good film\n" * 2000)
    assert run().rows == 2000
    assert sizes == [256, 512, 1024, 208]


def test_a_text_that_looks_like_an_option_is_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    for text, shown in (("-1 of 10", "'-1 of 10'"), ("-not good", "'-not good'"), ("-_-", "-_-")):
        with pytest.raises(SystemExit) as stop:
            cli.main(["predict", text])
        assert stop.value.code == 2
        assert f"senthy predict -- {shown}\n" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["predict", "--ouput", "good"])
    assert "--output" in capsys.readouterr().err


# --- memory, and what a stopped run leaves ---------------------------------------------------------------------------


def test_rows_stream_in_bounded_chunks(
    run: Callable[..., predict.PredictResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    monkeypatch.setattr(Predictor, "chunk", 7)
    for ending in ("csv", "jsonl", "parquet", "db"):
        sizes.clear()
        source = write_rows(tmp_path / f"in.{ending}", [{"text": f"good {at}"} for at in range(23)])
        run(input_file=source, output_file=tmp_path / f"out.{ending}")
        assert sizes == [7, 7, 7, 2]
        assert [row["text"] for row in read_rows(tmp_path / f"out.{ending}")] == [f"good {at}" for at in range(23)]


@pytest.mark.parametrize("ending", ["csv", "db"])
def test_reading_keeps_a_bounded_lead_over_the_model_and_the_writer(
    ending: str, run: Callable[..., predict.PredictResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, labelled, written = [0], [0], [0]
    leads: list[int] = []
    joined, compute, rows = predict_rows._joined, Predictor.compute, predict_rows._rows

    def reading(batches: Any) -> Any:
        read[0] += 1
        return joined(batches)

    def computing(self: Predictor, prepared: engine.PreparedTexts, **options: Any) -> Any:
        labelled[0] += 1
        leads.append(read[0] - labelled[0])
        assert labelled[0] - written[0] == 1
        return compute(self, prepared, **options)

    def writing(*arguments: Any) -> list[Any]:
        written[0] += 1
        return list(rows(*arguments))

    monkeypatch.setattr(Predictor, "chunk", 5)
    monkeypatch.setattr(predict_rows, "_joined", reading)
    monkeypatch.setattr(Predictor, "compute", computing)
    monkeypatch.setattr(predict_rows, "_rows", writing)
    source = write_rows(tmp_path / f"in.{ending}", [{"text": f"good {at}"} for at in range(400)])
    run(input_file=source, output_file=tmp_path / f"out.{ending}")
    assert (read[0], labelled[0], written[0]) == (80, 80, 80)
    assert max(leads) == 1


def test_a_text_that_comes_again_in_a_chunk_is_computed_once(
    run: Callable[..., predict.PredictResult],
    expected: dict[str, engine.Prediction],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed: list[int] = []
    compute = Predictor.compute

    def counted(self: Predictor, prepared: engine.PreparedTexts, **options: Any) -> Any:
        computed.append(len(prepared.tokenized))
        return compute(self, prepared, **options)

    monkeypatch.setattr(Predictor, "compute", counted)
    texts = [text for text in TEXTS if "\t" not in text] * 8
    source = write_rows(tmp_path / "in.csv", [{"text": text} for text in texts])
    run(input_file=source, output_file=tmp_path / "out.csv")
    assert computed == [len({text for text in texts if text})]
    assert_labelled(read_rows(tmp_path / "out.csv"), texts, expected)


def test_a_group_ends_where_its_texts_are_long(
    run: Callable[..., predict.PredictResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    monkeypatch.setattr(predict_rows, "_READ", 2)
    monkeypatch.setattr(predict_rows, "_CHARACTERS", 100)
    rows = [{"text": "good"}] * 6 + [{"text": "long " * 15}] * 4 + [{"text": "bad"}] * 3
    run(input_file=write_rows(tmp_path / "in.csv", rows), output_file=tmp_path / "out.csv")
    assert sizes == [6, 2, 2, 3]
    assert [row["text"] for row in read_rows(tmp_path / "out.csv")] == [row["text"] for row in rows]


@pytest.mark.parametrize("ending", ["csv", "db", "parquet"])
def test_a_failed_write_ends_every_thread_and_leaves_the_old_file(
    ending: str, run: Callable[..., predict.PredictResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "in.csv", [{"text": f"good {at}"} for at in range(90)])
    target = tmp_path / "out" / f"out.{ending}"
    run("good", output_file=target)
    old, before = target.read_bytes(), set(threading.enumerate())
    rows, calls = predict_rows._rows, iter(range(99))

    def full(*arguments: Any) -> Any:
        if next(calls) == 3:
            raise OSError(28, "No space left on device")
        return rows(*arguments)

    monkeypatch.setattr(Predictor, "chunk", 4)
    monkeypatch.setattr(predict_rows, "_rows", full)
    with pytest.raises(OutputError, match="disk is full"):
        run(input_file=source, output_file=target)
    assert target.read_bytes() == old
    assert {path.name for path in target.parent.iterdir()} - {f".{target.name}.parts"} == {target.name}
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("ending", ["csv", "jsonl.gz", "parquet", "db"])
def test_a_stopped_run_leaves_the_old_file(
    ending: str, run: Callable[..., predict.PredictResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "in.csv", [{"text": f"good {at}"} for at in range(9)])
    target = tmp_path / "out" / f"out.{ending}"
    run(input_file=source, output_file=target)
    old = target.read_bytes()
    stop_after(1, monkeypatch)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        run(input_file=source, output_file=target)
    assert set(threading.enumerate()) <= before
    assert target.read_bytes() == old
    monkeypatch.undo()
    run(input_file=source, output_file=target)
    assert [path.name for path in target.parent.iterdir()] == [target.name]


RESUMABLE = ["csv", "tsv", "jsonl", "csv.gz", "jsonl.gz", "parquet"]


def test_the_first_group_is_small_so_that_a_run_can_soon_be_resumed() -> None:
    batches = [[Batch(range(start, start + 1024), {"text": ["good"] * 1024})] for start in (1, 1025, 2049)]
    incoming = predict_rows.Incoming("rows", "csv", ["text"], iter(batches))
    groups = predict_rows._groups(incoming, "text", [], most=1024)
    assert [len(group.texts) for group in groups] == [128, 896, 1024, 1024]


@pytest.mark.parametrize("ending", RESUMABLE)
def test_a_stopped_run_is_resumed_to_the_same_bytes(
    ending: str,
    run: Callable[..., predict.PredictResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{"text": "" if at == 2 else f"good {at}", "id": at} for at in range(23)]
    source = write_rows(tmp_path / "in.csv", rows)
    monkeypatch.setattr(Predictor, "chunk", 4)
    whole = run(input_file=source, output_file=tmp_path / f"whole.{ending}")
    target = tmp_path / f"out.{ending}"
    for groups in (3, 1, 0):  # stopped again while it is resumed
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop_after(groups, patch)
            run(input_file=source, output_file=target, resume=groups < 3)
        assert not target.exists()
    (target.parent / f".{target.name}.parts" / "00000004").write_bytes(b"half a pa")
    resumed = run(input_file=source, output_file=target, resume=True)
    assert "resuming after 16 texts" in capsys.readouterr().err
    assert target.read_bytes() == (tmp_path / f"whole.{ending}").read_bytes()
    assert (resumed.rows, resumed.empty) == (whole.rows, whole.empty) == (23, 1)
    assert read_rows(target)[22]["text"] == "good 22"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_small_parts_of_parquet_become_larger_row_groups(
    run: Callable[..., predict.PredictResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Predictor, "chunk", 4)
    monkeypatch.setattr(parts, "_ROW_GROUP", 8)
    source = write_rows(tmp_path / "in.csv", [{"text": f"good {at}"} for at in range(21)])
    run(input_file=source, output_file=tmp_path / "out.parquet")
    made = pq.ParquetFile(tmp_path / "out.parquet").metadata
    assert [made.row_group(at).num_rows for at in range(made.num_row_groups)] == [8, 8, 5]


@pytest.mark.parametrize("changed", ["input", "model", "options", "options by configuration"])
def test_a_changed_run_is_not_resumed(
    changed: str, run: Callable[..., predict.PredictResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_rows(tmp_path / "in.csv", [{"text": f"good {at}", "reply": f"bad {at}"} for at in range(23)])
    target = tmp_path / "out.csv"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_after(2, patch)
        run(input_file=source, output_file=target)
    options: dict[str, Any] = {}
    if changed == "input":
        write_rows(source, [{"text": f"fine {at:05}", "reply": f"bad {at}"} for at in range(23)])
    elif changed == "model":
        options = {"labels": ["positive", "negative"], "precision": "int8"}
    elif changed == "options by configuration":
        options = {"config": configured(data={"text_column": "reply"})}
    else:
        options = {"config": configured(data={"bad_rows": "skip"})}
    with pytest.raises(OutputError, match=f"the {changed.partition(' ')[0]} changed"):
        run(input_file=source, output_file=target, resume=True, **options)
    assert run(input_file=source, output_file=target, **options).rows == 23
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_killed_run_is_resumed_to_the_same_bytes(ending: str, model_dir: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.csv", [{"text": f"good film {at}"} for at in range(60)])
    options: dict[str, Any] = {"model_dir": model_dir, "device": "cpu", "config": configured()}
    code = (
        "import os, sys; from pathlib import Path; from sentiment_hybrid.commands import predict\n"
        "from sentiment_hybrid.config.schema import Config; from sentiment_hybrid.data.parts import Parts\n"
        "from sentiment_hybrid.engine.inference import predictor\n"
        "predictor.Predictor.chunk = 4; write_part = Parts.write\n"
        "def write(self, *given):\n    write_part(self, *given)\n    self.done == 5 and os.kill(os.getpid(), 9)\n"
        "Parts.write = write\n"
        "config = Config.model_validate({'linear': {'train': {'precision': 'fp32'}}})\n"
        "given, made, model = map(Path, sys.argv[1:])\n"
        "predict.run(predict.Request(config=config, model_dir=model, device='cpu', input_file=given, output_file=made))"
    )
    made, whole = tmp_path / f"out.{ending}", tmp_path / f"whole.{ending}"
    command = [sys.executable, "-c", code, str(source), str(made), str(model_dir)]
    killed = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert killed.returncode == -9, killed.stderr.decode()
    assert not made.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "chunk", 4)
        predict.run(predict.Request(input_file=source, output_file=whole, **options))
        predict.run(predict.Request(input_file=source, output_file=made, resume=True, **options))
    assert made.read_bytes() == whole.read_bytes()


def test_one_process_at_a_time_writes_an_output(run: Callable[..., predict.PredictResult], tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.csv", [{"text": "good"}])
    with locked(tmp_path / "out.csv"), pytest.raises(OutputError, match="another process is writing"):
        run(input_file=source, output_file=tmp_path / "out.csv")
    assert run(input_file=source, output_file=tmp_path / "out.csv").rows == 1


def test_what_ends_a_run_over_a_database_is_reported_and_nothing_else(
    run: Callable[..., predict.PredictResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(0, monkeypatch)
    source = write_rows(tmp_path / "in.db", [{"text": f"good {at}"} for at in range(90)])
    with pytest.raises(KeyboardInterrupt):
        run(input_file=source, output_file=tmp_path / "out.csv")


def test_a_damaged_input_leaves_no_output(run: Callable[..., predict.PredictResult], tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.csv.gz", [{"text": f"good {at}"} for at in range(5000)])
    source.write_bytes(source.read_bytes()[:-30])
    with pytest.raises(SourceError, match="cut off"):
        run(input_file=source, output_file=tmp_path / "out.csv")
    assert [path.name for path in tmp_path.glob("*out*")] == []


def test_unreadable_rows_can_be_left_out_and_are_counted(
    run: Callable[..., predict.PredictResult], tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("text,id\ngood,1\nbad\nfilm,3\n", encoding="utf-8")
    with pytest.raises(SourceError, match="line 3, data row 2"):
        run(input_file=tmp_path / "in.csv", output_file=tmp_path / "out.csv")
    config = configured(data={"bad_rows": "skip"})
    result = run(input_file=tmp_path / "in.csv", output_file=tmp_path / "out.csv", config=config)
    assert (result.rows, result.skipped) == (2, 1)


# --- usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"texts": ["good"], "input_file": Path("in.csv")}, "--input"),
        ({"texts": ["good"], "text_column": "text"}, "--text-column"),
        ({"texts": ["good"], "file_format": "csv"}, "--format"),
        ({"texts": ["good"], "output_file": Path("out.docx")}, r"out\.docx"),
        ({"texts": ["good"], "output_file": Path("out.parquet.gz")}, r"out\.parquet\.gz"),
        ({"texts": ["good"], "output_file": Path("out.csv"), "as_json": True}, "--json"),
        ({"texts": ["good"], "table": "t"}, "--table"),
        ({"input_file": Path("in.csv"), "table": "t"}, "in.csv is csv"),
        ({"input_file": Path("in.csv"), "resume": True}, "--resume needs"),
        ({"texts": ["good"], "output_file": Path("out.csv"), "resume": True}, "--resume needs"),
        ({"input_file": Path("in.csv"), "output_file": Path("out.db"), "resume": True}, "SQLite"),
        ({"input_file": Path("in.csv"), "output_file": Path("in.csv")}, "same file as --input"),
        ({"input_file": Path("in.csv"), "output_file": Path("link.csv")}, "same file as --input"),
    ],
)
def test_options_that_contradict_each_other_are_refused_before_the_model_is_loaded(
    options: dict[str, Any], told: str, run: Callable[..., predict.PredictResult]
) -> None:
    write_rows(Path("in.csv"), [{"text": "good"}])
    os.link("in.csv", "link.csv")
    with pytest.raises(UsageError, match=told):
        run(*options.pop("texts", ()), **options, model_dir=Path("not there"))
    assert read_rows(Path("in.csv")) == [{"text": "good"}]


def test_nothing_to_label_is_an_error_on_a_terminal(
    run: Callable[..., predict.PredictResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    with pytest.raises(UsageError, match="nothing to label"):
        run()


def test_a_database_with_other_tables_is_not_replaced(
    run: Callable[..., predict.PredictResult], tmp_path: Path
) -> None:
    target = write_rows(tmp_path / "mine.db", [{"text": "good"}])
    old = target.read_bytes()
    with pytest.raises(OutputError, match="tweets"):
        run("good", output_file=target)
    assert target.read_bytes() == old


@pytest.mark.parametrize("target", [Path("folder.csv"), Path("file/out.csv")])
def test_a_place_that_cannot_be_written_is_reported(target: Path, run: Callable[..., predict.PredictResult]) -> None:
    Path("folder.csv").mkdir()
    Path("file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match=target.name):
        run("good", output_file=target)


def test_a_full_disk_is_reported_and_leaves_nothing(
    run: Callable[..., predict.PredictResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="disk is full"):
        run("good", output_file=tmp_path / "out.csv")
    assert list(tmp_path.glob(".out*")) == []


def test_a_tsv_is_written_as_it_was_read(run: Callable[..., predict.PredictResult], tmp_path: Path) -> None:
    raw, quoted = tmp_path / "raw.tsv", tmp_path / "quoted.tsv"
    raw.write_text('text\ta\nso "good"\t"\n', encoding="utf-8")
    quoted.write_text('text\ta\n"good\r\n""film"""\t"x\ty"\n', encoding="utf-8", newline="")
    for source in (raw, quoted):
        run(input_file=source, output_file=tmp_path / f"out-{source.name}")
    assert (tmp_path / "out-raw.tsv").read_text(encoding="utf-8").startswith("text\ta\tprediction")
    assert parse((tmp_path / "out-raw.tsv").read_text(encoding="utf-8"), "tsv")[0]["text"] == 'so "good"'
    labelled = read_rows(tmp_path / "out-quoted.tsv")
    assert (labelled[0]["text"], labelled[0]["a"]) == ('good\r\n"film"', "x\ty")


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_quoting_is_that_of_the_input(suffix: str, run: Callable[..., predict.PredictResult], tmp_path: Path) -> None:
    source, unquoted = tmp_path / "in.tsv", configured(data={"quoting": "none"})
    source.write_text('text\ta\n"good, really\t"\n', encoding="utf-8")
    run(input_file=source, output_file=tmp_path / f"out{suffix}", config=unquoted)
    labelled = read_rows(tmp_path / f"out{suffix}")
    assert (labelled[0]["text"], labelled[0]["a"]) == ('"good, really', '"')
    run("good\nfilm", output_file=tmp_path / f"given{suffix}", config=unquoted)
    assert read_rows(tmp_path / f"given{suffix}")[0]["text"] == "good\nfilm"


def test_a_tab_has_no_place_in_an_unquoted_tsv(run: Callable[..., predict.PredictResult], tmp_path: Path) -> None:
    source = tmp_path / "in.tsv"
    source.write_text("text;a\ngood\tfilm;1\n", encoding="utf-8")
    set_by_hand = configured(data={"quoting": "none", "delimiter": ";"})
    with pytest.raises(OutputError, match="unquoted tsv") as caught:
        run(input_file=source, output_file=tmp_path / "out.tsv", config=set_by_hand)
    assert ".csv" in caught.value.hint


def test_columns_of_a_csv_that_are_numbers_are_numbers_in_jsonl(
    run: Callable[..., predict.PredictResult], tmp_path: Path
) -> None:
    rows = [{"id": "7", "text": "1", "code": "01"}, {"id": "8", "text": "2", "code": "2"}]
    run(input_file=write_rows(tmp_path / "in.csv", rows), output_file=tmp_path / "out.jsonl")
    labelled = read_rows(tmp_path / "out.jsonl")
    assert [[row["id"], row["text"], row["code"]] for row in labelled] == [[7, "1", "01"], [8, "2", "2"]]


def test_the_published_model_is_taken_by_head_or_the_first_there_is(
    model_dir: Path, tiny_encoder_dir: Path, tmp_path: Path
) -> None:
    config = configured(paths={"models_dir": model_dir.parent})
    assert predict.run(predict.Request(["good"], config=config, device="cpu")).model_dir == model_dir
    assert predict.run(predict.Request(["good"], config=config, head="linear", device="cpu")).model_dir == model_dir
    with pytest.raises(ModelError, match="han_roberta_model_final") as caught:
        predict.run(predict.Request(["good"], config=config, head="han"))
    assert "senthy train --model han" in caught.value.hint


def test_a_directory_with_another_head_than_asked_for_is_refused(run: Callable[..., predict.PredictResult]) -> None:
    with pytest.raises(ModelError, match="is a linear model, not han") as caught:
        run("good", head="han")
    assert caught.value.hint == "Use --model linear."
    assert run("good", head="linear").rows == 1


def test_nltk_data_of_the_classic_normaliser_are_looked_for_in_the_configured_cache(
    model_dir: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nltk's corpora stay with the folder that they were first read from: this test has an nltk of its own.
    for name in [name for name in sys.modules if name.split(".")[0] == "nltk"]:
        monkeypatch.delitem(sys.modules, name)
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    normalizers._nltk_tools.cache_clear()
    place = Path(shutil.copytree(model_dir, tmp_path / "model"))
    document = json.loads((place / paths.MODEL_JSON).read_text(encoding="utf-8"))
    changes = {"normalizer": "classic@1", "checksum": None}
    (place / paths.MODEL_JSON).write_text(json.dumps(document | changes), encoding="utf-8")
    options: dict[str, Any] = {"model_dir": place, "device": "cpu", "offline": True}
    with pytest.raises(DataError, match="nltk"):
        predict.run(predict.Request(["good films"], config=configured(), **options))
    for source in (shared / "nltk_data").rglob("*"):
        if source.is_file():
            # Private copies: nltk refuses data files that others may write.
            target = tmp_path / "cache" / "nltk_data" / source.relative_to(shared / "nltk_data")
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            shutil.copyfile(source, target)
            target.chmod(0o644)
    config = configured(paths={"cache_dir": tmp_path / "cache"})
    assert predict.run(predict.Request(["good films"], config=config, **options)).predictions[0].label is not None
    normalizers._nltk_tools.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "nltk"]:
        del sys.modules[name]


@pytest.mark.parametrize("damage", ["model.json", "model.safetensors", "pickle", "format"])
def test_a_model_that_cannot_be_used_is_reported_and_nothing_is_written(
    damage: str, model_dir: Path, run: Callable[..., predict.PredictResult], tmp_path: Path
) -> None:
    place = Path(shutil.copytree(model_dir, tmp_path / "model"))
    if damage == "pickle":
        (place / paths.MODEL_WEIGHTS).unlink()
        (place / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    elif damage == "format":
        text = (place / paths.MODEL_JSON).read_text(encoding="utf-8")
        (place / paths.MODEL_JSON).write_text(text.replace('"format_version": 1', '"format_version": 2'))
    else:
        (place / damage).write_bytes((place / damage).read_bytes()[:100])
    with pytest.raises(SenthyError) as caught:
        run("good", model_dir=place, output_file=tmp_path / "out.csv")
    assert isinstance(caught.value, ModelError)
    assert caught.value.hint
    assert not (tmp_path / "out.csv").exists()


def test_the_command_line_answers_among_the_labels_named(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def called(labels: str) -> int:
        with pytest.raises(SystemExit) as stop:
            cli.main(["predict", "--load-model-path", str(model_dir), "--json", "--labels", labels, "a fine day"])
        return int(stop.value.code or 0)

    assert called("positive, negative") == 0
    assert {"p_negative", "p_positive"} < set(json.loads(capsys.readouterr().out))
    assert called("positive,neutral") == 2
    assert "no label 'neutral'; its labels are negative, positive" in " ".join(capsys.readouterr().err.split())
