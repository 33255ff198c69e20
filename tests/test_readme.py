"""The README's commands and the Python example do what they say, on a small encoder in place of roberta-base."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from sentiment_hybrid.cli import main

ROOT = Path(__file__).resolve().parents[1]


def block_after(heading: str, *, kind: str = "", page: str = "README.md") -> str:
    """The first fenced block of a kind after a heading."""
    below = re.split(rf"^#+ {heading}\n", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", below, re.DOTALL | re.MULTILINE)
    return next(block for found, block in blocks if found == kind)


def run(line: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(shlex.split(line, comments=True)[1:])
    return caught.value.code or 0


@pytest.fixture
def small_settings(tiny_encoder_dir, tmp_path):
    """A senthy.yaml beside the user's files: found without --config, as the README says."""
    document = {
        "encoder": {"name": str(tiny_encoder_dir), "max_length": 16},
        "lstm": {"head": {"hidden": 8, "layers": 1}, "train": {"epochs": 1}},
        "han": {"head": {"hidden": 8}, "train": {"epochs": 1}},
        "test": {"resamples": 100},
    }
    (tmp_path / "senthy.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")


def test_the_commands_for_ones_own_data_run_as_they_stand(small_settings, tmp_path):
    words = ("awful", "bad", "usual", "good", "superb")
    lines = ["review,stars"] + [f"a {words[i % 5]} day number {i},{i % 5 + 1}" for i in range(200)]
    (tmp_path / "reviews.csv").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "new.csv").write_text("id,text\n7,what a day\n8,so good\n", encoding="utf-8")
    for line in block_after("Your own data").splitlines():
        assert run(line) == 0, line
    labelled = (tmp_path / "labelled.csv").read_text(encoding="utf-8").splitlines()
    assert labelled[0] == "id,text,prediction,score,p_negative,p_neutral,p_positive"
    assert [line.split(",")[0] for line in labelled[1:]] == ["7", "8"]


def test_the_python_example_runs_as_it_stands(capsys):
    assert run("senthy data --config quickstart") == 0
    exec(compile(block_after("Python API", kind="python", page="docs/python.md"), "python.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "Interval(value=" in shown
    assert "Prediction(" in shown
