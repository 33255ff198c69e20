"""`senthy predict` over many files: each row exactly once, whoever is killed; no folder of another job is touched."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentiment_hybrid import cli, processes
from sentiment_hybrid.commands import predict, predict_shards
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data import parts, shards
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.errors import OutputError, ShardError, SourceError, UsageError

from .conftest import TEXTS

Run = Callable[..., predict.PredictResult]


@pytest.fixture(scope="module")
def predictor(model_dir: Path) -> Predictor:
    return Predictor(model_dir, device="cpu", precision="fp32")


@pytest.fixture
def run(model_dir: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Label the files of ``in`` into ``out``, by a model that is loaded once."""
    monkeypatch.setattr(predict_shards, "open_predictor", lambda request: (predictor, model_dir, request.abstain_below))

    def call(**options: Any) -> predict.PredictResult:
        config = Config.model_validate({"linear": {"train": {"precision": "fp32"}}})
        given = {"input_file": str(tmp_path / "in"), "output_file": str(tmp_path / "out")}
        return predict_shards.run(
            predict.Request(**{"config": config, "model_dir": model_dir, "device": "cpu", **given, **options})
        )

    return call


def write_files(folder: Path, number: int = 4, *, rows: int = 6, suffix: str = "csv") -> list[Path]:
    """Files of texts that tell where they are from; every second one in a folder of its own."""
    files = []
    for at in range(number):
        path = folder / ("more" if at % 2 else "") / f"part-{at}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = [f"{TEXTS[row % len(TEXTS)].replace(',', '')} {at} {row}".replace('"', "") for row in range(rows)]
        if suffix == "parquet":
            pq.write_table(pa.table({"text": texts, "id": [100 * at + row for row in range(rows)]}), path)
        else:
            text = "text,id\n" + "".join(f"{one},{100 * at + row}\n" for row, one in enumerate(texts))
            path.write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
        files.append(path)
    return files


def outputs(folder: Path) -> dict[str, bytes]:
    """The outputs by name, without what describes them."""
    found = [path for path in folder.rglob("*") if path.is_file() and shards.OWN not in path.parts]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
def test_each_file_becomes_the_file_that_it_becomes_alone(
    suffix: str, run: Run, model_dir: Path, tmp_path: Path
) -> None:
    files = write_files(tmp_path / "in", suffix=suffix)
    result = run()
    assert (result.rows, result.files) == (24, 4)
    made = outputs(tmp_path / "out")
    assert sorted(made) == sorted(path.relative_to(tmp_path / "in").as_posix() for path in files)
    config = Config.model_validate({"linear": {"train": {"precision": "fp32"}}})
    alone = tmp_path / f"alone.{suffix}"
    predict.run(
        predict.Request(config=config, model_dir=model_dir, device="cpu", input_file=files[1], output_file=alone)
    )
    assert made[f"more/part-1.{suffix}"] == alone.read_bytes()


def test_readers_of_datasets_see_the_rows_alone(run: Run, tmp_path: Path) -> None:
    write_files(tmp_path / "in", suffix="parquet")
    run()
    table = pq.read_table(tmp_path / "out")
    assert sorted(table["id"].to_pylist()) == sorted(100 * at + row for at in range(4) for row in range(6))
    assert None not in table["prediction"].to_pylist()


def test_the_manifest_counts_rows_and_has_the_checksum_of_every_file(run: Run, tmp_path: Path) -> None:
    files = write_files(tmp_path / "in")
    files[0].write_text("text,id\ngood,1\n,2\n")
    run()
    manifest = json.loads((tmp_path / "out" / predict_shards.MANIFEST).read_text())
    assert (manifest["files"], manifest["rows"], manifest["empty"]) == (4, 20, 1)
    for one in manifest["shards"]:
        path = tmp_path / "out" / one["output"]
        assert (path.stat().st_size, predict_shards.sha256(path)) == (one["bytes"], one["sha256"])


def test_what_is_done_is_not_labelled_again_unless_it_has_changed_or_is_gone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_files(tmp_path / "in")
    run()
    before = outputs(tmp_path / "out")
    labelled: list[str] = []
    original = predict_shards.Labeller._labelled
    monkeypatch.setattr(
        predict_shards.Labeller,
        "_labelled",
        lambda self, shard, advance: labelled.append(shard.name) or original(self, shard, advance),
    )
    run()
    assert labelled == []
    files[2].write_text("text,id\nanother,1\n")
    (tmp_path / "out" / "more" / "part-3.csv").unlink()
    run()
    assert labelled == ["more/part-3.csv", "part-2.csv"]
    after = outputs(tmp_path / "out")
    assert [name for name in before if before[name] != after[name]] == ["part-2.csv"]


def test_a_manifest_does_not_outlive_the_outputs_that_it_describes(run: Run, tmp_path: Path) -> None:
    files = write_files(tmp_path / "in")
    run()
    files[0].write_text("text,id\nanother,1\n")
    files[1].write_text("words,id\nanother,1\n")
    with pytest.raises(ShardError, match="1 file of 4 could not be labelled"):
        run()
    assert not (tmp_path / "out" / predict_shards.MANIFEST).exists()


def test_every_nth_file_by_itself_is_all_of_them_together(run: Run, tmp_path: Path) -> None:
    write_files(tmp_path / "in", 5)
    run()
    whole = outputs(tmp_path / "out")
    for number in (3, 1):
        run(output_file=str(tmp_path / "parts"), shard=(number, 3))
    with pytest.raises(ShardError, match="2 files of 5 are not labelled") as failure:
        run(output_file=str(tmp_path / "parts"), finish=True)
    assert failure.value.problems == ("more/part-3.csv", "part-4.csv")
    run(output_file=str(tmp_path / "parts"), shard=(2, 3))
    assert run(output_file=str(tmp_path / "parts"), finish=True).rows == 30
    assert outputs(tmp_path / "parts") == whole


def test_a_pattern_names_files_at_any_depth(run: Run, tmp_path: Path) -> None:
    write_files(tmp_path / "in")
    (tmp_path / "in" / "_SUCCESS").write_text("")
    (tmp_path / "in" / "notes.md").write_text("not a table")
    run(input_file=str(tmp_path / "in" / "**" / "part-[13].csv"))
    assert sorted(outputs(tmp_path / "out")) == ["more/part-1.csv", "more/part-3.csv"]
    with pytest.raises(SourceError, match="no file matches"):
        run(input_file=str(tmp_path / "in" / "*.tsv"))


def stop_at(number: int, patch: pytest.MonkeyPatch) -> None:
    """Have the process stopped while the so-manieth part of all is written."""
    write, written = parts.Parts.write, []

    def stopped(self: parts.Parts, *given: Any) -> None:
        written.append(self)
        if len(written) == number:
            raise KeyboardInterrupt
        write(self, *given)

    patch.setattr(parts.Parts, "write", stopped)


def test_a_stopped_job_goes_on_in_the_middle_of_a_file(run: Run, predictor: Predictor, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "chunk", 2)
        write_files(tmp_path / "in")
        run(output_file=str(tmp_path / "whole"))
        with pytest.MonkeyPatch.context() as stop, pytest.raises(KeyboardInterrupt, match="1 file labelled"):
            stop_at(6, stop)
            run()
        half = list((tmp_path / "out").rglob(".*.parts/0*"))
        assert len(half) == 2
        assert run().files == 3
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_a_part_of_a_file_that_has_changed_is_not_used(run: Run, predictor: Predictor, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "chunk", 2)
        files = write_files(tmp_path / "in")
        with pytest.MonkeyPatch.context() as stop, pytest.raises(KeyboardInterrupt):
            stop_at(3, stop)
            run()
        for path in files:
            path.write_text(path.read_text().replace("good", "fine"))
        run()
    assert b"good" not in b"".join(outputs(tmp_path / "out").values())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"abstain_below": 0.6}, "abstain_below is 0.6, there None"),
        ({"safe_csv": True}, "safe_csv is True, there False"),
        ({"text_column": "id"}, "text_column is 'id'"),
        ({"input_file": "elsewhere"}, "another job"),
    ],
)
def test_the_folder_of_another_job_is_refused_also_where_all_is_done(
    options: dict[str, Any], said: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "in")
    write_files(tmp_path / "elsewhere")
    run()
    before = outputs(tmp_path / "out")
    with pytest.raises(OutputError, match=said):
        run(**options)
    assert outputs(tmp_path / "out") == before
    assert (tmp_path / "out" / predict_shards.MANIFEST).exists()


def test_the_folder_of_another_model_is_refused(run: Run, tmp_path: Path) -> None:
    write_files(tmp_path / "in")
    run()
    job = tmp_path / "out" / predict_shards.JOB
    job.write_text(job.read_text().replace('"fp32"', '"bf16"'))
    with pytest.raises(OutputError, match="another job: compute is"):
        run()


def test_a_folder_with_other_files_is_refused(run: Run, tmp_path: Path) -> None:
    write_files(tmp_path / "in")
    write_files(tmp_path / "out", 1)
    with pytest.raises(OutputError, match=r"holds other files, such as part-0\.csv"):
        run()


def test_files_that_cannot_be_read_are_reported_and_the_others_go_on(run: Run, tmp_path: Path) -> None:
    files = write_files(tmp_path / "in", 5, suffix="csv.gz")
    files[1].write_bytes(files[1].read_bytes()[:-12])
    files[2].write_bytes(gzip.compress(b"words,id\ngood,1\n"))
    with pytest.raises(ShardError, match="2 files of 5 could not be labelled; the others are done") as failure:
        run()
    problems = sorted(failure.value.problems)
    assert "cut off" in problems[0]
    assert "other columns than the first file: 'words'; not 'text'" in problems[1]
    assert len(outputs(tmp_path / "out")) == 3
    with pytest.raises(ShardError, match="2 files of 5 are not labelled"):
        run(finish=True)
    files[1].write_bytes(gzip.compress(b"text,id\ngood,1\n"))
    files[2].unlink()
    run()
    assert len(outputs(tmp_path / "out")) == 4


def test_types_that_differ_are_reported(run: Run, tmp_path: Path) -> None:
    files = write_files(tmp_path / "in", 3, suffix="parquet")
    pq.write_table(pa.table({"text": ["good"], "id": ["one"]}), files[2])
    with pytest.raises(ShardError) as failure:
        run()
    assert failure.value.problems[0].startswith(
        "part-2.parquet has string in column 'id', where the first file has int64"
    )


def test_a_disk_that_is_full_stops_the_job_and_the_same_command_continues(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_files(tmp_path / "in")
    flush, flushed = parts.flush_file, []

    def full(path: Path) -> None:
        flushed.append(path)
        if len(flushed) > 3:
            raise OSError(28, "No space left on device")
        flush(path)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "flush_file", full)
        with pytest.raises(OutputError, match="the disk is full"):
            run()
    assert [name for name in outputs(tmp_path / "out") if ".parts" not in name] == ["more/part-1.csv"]
    assert run().rows == 18
    assert len(outputs(tmp_path / "out")) == 4


def test_a_full_folder_for_temporary_files_stops_a_job_on_urls(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = pytest.importorskip("fsspec.implementations.local")
    write_files(tmp_path / "in")

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(local.LocalFileSystem, "get_file", full)
    with pytest.raises(OutputError, match="the disk is full") as raised:
        run(input_file=f"file://{tmp_path}/in")
    assert "TMPDIR" in raised.value.hint


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"output_file": None}, "need an --output folder"),
        ({"review": Path("review.csv")}, "--review and --json are for one file"),
        ({"texts": ["good"]}, "both texts and --input"),
        ({"abstain_below": 0.6, "target_accuracy": 0.9}, "exclude each other"),
        ({"output_file": "in/out"}, "is inside the folder --input"),
        ({"output_file": "in/more"}, "--input includes files of --output"),
        ({"output_file": "in"}, "--input includes files of --output"),
        ({"finish": True, "shard": (1, 2)}, "--finish checks all files, and --shard only some"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, Any], said: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path / "in")
    with pytest.raises(UsageError, match=said):
        run(**options)


@pytest.mark.parametrize("given", ["0/4", "5/4", "1", "a/b", "1/0"])
def test_an_invalid_shard_is_reported(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["predict", "--input", "in", "--output", "out", "--shard", given])
    assert end.value.code == 2
    assert f"--shard {given} is not I/N" in capsys.readouterr().err


def test_options_for_several_files_are_refused_for_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (path,) = write_files(tmp_path / "in", 1)
    with pytest.raises(SystemExit) as end:
        cli.main(["predict", "--input", str(path), "--output", "out.csv", "--workers", "2"])
    assert end.value.code == 2
    assert "apply to several files" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_reported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["predict", "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")])
    assert end.value.code == 1
    assert "there is no file" in capsys.readouterr().err


def test_the_model_of_several_workers_is_reported_too(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_files(tmp_path / "in", 2)
    monkeypatch.setattr(predict_shards, "_in_helpers", lambda *_: iter(()))
    config = Config.model_validate({"paths": {"models_dir": str(tmp_path / "models")}})
    with pytest.raises(OutputError, match="is no output of predict"):
        run(workers=2, model_dir=None, config=config)
    assert "using mini" in capfd.readouterr().err


def test_files_of_several_formats_are_reported(run: Run, tmp_path: Path) -> None:
    write_files(tmp_path / "in", 1)
    write_files(tmp_path / "in", 1, suffix="parquet")
    with pytest.raises(SourceError, match=r"several formats: csv \(part-0.csv\), parquet \(part-0.parquet\)"):
        run()


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_killed_worker_is_replaced_and_a_file_that_kills_two_is_left_out(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    files = write_files(tmp_path / "in", 4)
    run(output_file=str(tmp_path / "whole"))
    good = files[3].read_bytes()
    files[3].write_text("words,id\ngood,1\n")
    give, kills = processes.Helpers.give, {"part-0.csv": 1, "part-2.csv": 2}

    def killing(self: processes.Helpers, slot: int, task: dict[str, Any]) -> None:
        give(self, slot, task)
        if kills.get(name := task["shard"]["name"], 0):
            kills[name] -= 1
            self._workers[slot].process.kill()

    with monkeypatch.context() as patch:
        patch.setattr(processes.Helpers, "give", killing)
        with pytest.raises(ShardError) as failure:
            run(workers=2)
    unreadable, killing_two = sorted(failure.value.problems)
    assert unreadable.startswith("more/part-3.csv has other columns")
    assert killing_two == "part-2.csv: worker died (signal 9), twice"
    assert "part-0.csv: worker died (signal 9); it is tried once more" in capfd.readouterr().err
    files[3].write_bytes(good)
    run()
    assert outputs(tmp_path / "out") == outputs(tmp_path / "whole")


def test_workers_that_all_die_end_the_job(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path / "in", 9)

    class Dying:
        """Helpers of which each dies at its task."""

        def __init__(self, *given: Any) -> None:
            self.given: list[int] = []

        def idle(self) -> list[int]:
            return [slot for slot in range(2) if slot not in self.given]

        def give(self, slot: int, task: dict[str, Any]) -> None:
            self.given.append(slot)

        def next(self, timeout: float) -> processes.Event:
            return processes.Event(self.given.pop(), None, "no memory")

        def release(self, slot: int) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(predict_shards, "Helpers", Dying)
    with pytest.raises(ShardError, match="worker after worker has died: no memory"):
        run(workers=2)


def test_a_url_is_labelled_into_a_url_as_a_folder_into_a_folder(run: Run, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    write_files(tmp_path / "in")
    run()
    store, place = fsspec.filesystem("memory"), f"memory:///{tmp_path.name}"
    store.put(f"{tmp_path}/in/", f"{place}/in/", recursive=True)
    options = {"input_file": f"{place}/in", "output_file": f"{place}/out"}
    run(**options, shard=(1, 2))
    with pytest.raises(ShardError, match="2 files of 4 are not labelled"):
        run(**options, finish=True)
    assert run(**options).files == 2
    store.get(f"{place}/out/", f"{tmp_path}/copied/", recursive=True)
    assert outputs(tmp_path / "copied") == outputs(tmp_path / "out")
    with pytest.raises(UsageError, match="--input includes files of --output"):
        run(input_file=f"{place}/out/", output_file=f"{place}/out")
    with pytest.raises(UsageError, match="is inside the folder --input"):
        run(input_file=f"file://{tmp_path}/in", output_file=str(tmp_path / "in" / "out"))


def test_an_output_in_a_hidden_folder_of_the_input_is_not_among_the_input(run: Run, tmp_path: Path) -> None:
    write_files(tmp_path / "in")
    for _ in range(2):
        run(output_file=str(tmp_path / "in" / "_labelled"))
    assert len(outputs(tmp_path / "in" / "_labelled")) == 4
