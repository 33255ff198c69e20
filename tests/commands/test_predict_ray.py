"""`senthy predict --engine ray` on one machine with two cores; run by hand, since Ray is in no extra of the tests.

pip install "ray[data]" && pytest tests/commands/test_predict_ray.py
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sentiment_hybrid.commands import predict, predict_ray, predict_shards
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.shards import LocalFolder
from sentiment_hybrid.errors import ColumnError, OutputError, ShardError, UsageError

Run = Callable[..., predict.PredictResult]


def test_without_ray_the_message_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    request = predict.Request(config=Config(), input_file=tmp_path, output_file=tmp_path / "out", engine="ray")
    with pytest.raises(UsageError, match="not installed") as failure:
        predict_ray.run(request)
    assert "pip install" in failure.value.hint


def test_the_manifest_counts_what_was_written_and_removes_the_checkpoints(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    for number, rows in enumerate((3, 4)):
        pq.write_table(pa.table({"text": ["good"] * rows}), tmp_path / f"part-{number}.parquet")
    (tmp_path / "_senthy" / "checkpoint").mkdir(parents=True)
    pq.write_table(pa.table({predict_ray.ROW: [1]}), tmp_path / "_senthy" / "checkpoint" / "rows.parquet")
    manifest = predict_ray._manifest(folder)
    assert (manifest["rows"], [part["rows"] for part in manifest["parts"]]) == (7, [3, 4])
    assert folder.read("_senthy/manifest.json") == manifest
    assert not (tmp_path / "_senthy" / "checkpoint").exists()


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    found = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    found.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    found.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield found
    found.shutdown()


@pytest.fixture
def run(ray: Any, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Label four files of ten rows with two actors, four rows at a time."""
    monkeypatch.setattr(predict_ray, "_BATCH", 4)
    for number in range(4):
        (tmp_path / "in").mkdir(exist_ok=True)
        texts = [f"good film {number} {row}" if row % 3 else f"bad food {number} {row}" for row in range(10)]
        pq.write_table(pa.table({"text": texts, "id": range(10)}), tmp_path / "in" / f"part-{number}.parquet")

    def call(engine: str = "ray", **options: Any) -> predict.PredictResult:
        config = Config.model_validate({"linear": {"train": {"precision": "fp32"}}})
        given = {"input_file": tmp_path / "in", "output_file": tmp_path / "out", "workers": 2, "engine": engine}
        request = predict.Request(**{"config": config, "model_dir": model_dir, "device": "cpu", **given, **options})
        return (predict_ray if engine == "ray" else predict_shards).run(request)

    return call


class DyingActor(predict_ray.Actor):
    """Ends its process the first time it sees the third file, and fails at the fourth while ``fail`` is there."""

    def __call__(self, table: pa.Table) -> pa.Table:
        folder = Path(str(self._request.output_file)).parent
        files = {number >> 32 for number in table[predict_ray.ROW].to_pylist()}
        if 2 in files and not (folder / "died").exists():
            (folder / "died").touch()
            os._exit(1)
        if 3 in files and (folder / "fail").exists():
            raise MemoryError("no memory for the batch")
        return super().__call__(table)


def test_a_dead_actor_and_a_stopped_job_lose_no_row_and_double_none(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("local", workers=1, output_file=tmp_path / "local")
    expected = pq.read_table(tmp_path / "local").sort_by([("text", "ascending")])
    monkeypatch.setattr(predict_ray, "Actor", DyingActor)
    (tmp_path / "fail").touch()
    with pytest.raises(ShardError, match="no memory for the batch"):
        run()
    assert (tmp_path / "died").exists()
    (tmp_path / "fail").unlink()
    assert run().rows == 40
    made = pq.read_table(tmp_path / "out")
    numbers = sorted(made[predict_ray.ROW].to_pylist())
    assert numbers == sorted((file << 32) + row for file in range(4) for row in range(1, 11))
    same = made.sort_by([("text", "ascending")])
    for name in ("text", "id", "prediction"):
        assert same[name].to_pylist() == expected[name].to_pylist()
    assert same["score"].to_pylist() == pytest.approx(expected["score"].to_pylist(), abs=2e-5)
    assert run().rows == 40, "what is done is counted, not labelled again"
    (tmp_path / "in" / "part-0.parquet").unlink()
    with pytest.raises(OutputError, match="have changed since"):
        run()


def test_a_file_of_another_schema_is_reported_as_without_ray(run: Run, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["good"], "other": [1]}), tmp_path / "in" / "part-3.parquet")
    with pytest.raises(ColumnError, match=r"part-3\.parquet has other columns than the first file: 'other'; not 'id'"):
        run()


def test_a_cluster_without_room_for_an_actor_is_reported_at_once(
    run: Run, ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_ray, "_MEMORY", 1 << 50)
    with pytest.raises(ShardError, match="no machine of the cluster has the"):
        run()
