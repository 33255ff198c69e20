"""The README's commands do what it says, on a small encoder in place of roberta-base."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from sentiment_hybrid.cli import main

README = Path(__file__).resolve().parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def block_after(heading: str, kind: str = "") -> str:
    """The first fenced block of a kind after a heading."""
    return re.search(rf"^## {heading}\n.*?^```{kind}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)[1]


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
    lines = ["text,label"] + [
        f"a {('bad', 'good')[i % 2]} day number {i},{('negative', 'positive')[i % 2]}" for i in range(200)
    ]
    (tmp_path / "reviews.csv").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "new.csv").write_text("id,text\n7,what a day\n8,so good\n", encoding="utf-8")
    for line in block_after("Your own data").splitlines():
        assert run(line) == 0, line
    labelled = (tmp_path / "labelled.csv").read_text(encoding="utf-8").splitlines()
    assert labelled[0] == "id,text,prediction,score,p_negative,p_positive"
    assert [line.split(",")[0] for line in labelled[1:]] == ["7", "8"]


def test_every_command_line_in_the_readme_names_options_that_exist(capsys):
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    shell = "\n".join(block for kind, block in blocks if kind in ("", "bash", "console"))
    lines = {match.split("#")[0].strip() for match in re.findall(r"(?:^|\$ |&& )(senthy .*)$", shell, re.MULTILINE)}
    lines |= set(re.findall(r"`(senthy [^`|]*)`", TEXT))
    assert len(lines) > 10
    for line in lines:
        words = shlex.split(line)[1:]
        if any(word.isupper() for word in words):
            continue  # a pattern such as `senthy COMMAND --help`
        verb = [word for word in words if not word.startswith("-")]
        verb = verb[: 2 if verb[:1] in (["cache"], ["config"]) else 1]
        options = [word for word in words if word.startswith("--")]
        run(f"senthy {' '.join(verb)} --help")
        shown = capsys.readouterr().out
        for option in options:
            assert option in shown or option in ("--version", "--install-completion"), f"{line}: {option}"


def test_the_python_example_runs_as_it_stands(capsys):
    assert run("senthy data --config quickstart") == 0
    exec(compile(block_after("From Python", "python"), "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "Interval(value=" in shown
    assert "Prediction(" in shown


def test_the_tree_names_every_module_of_the_package():
    tree = block_after("Where things are")
    package = README.parent / "sentiment_hybrid"
    for path in package.rglob("*.py"):
        if path.name not in ("__init__.py",):
            assert path.stem in tree, f"README's tree does not show {path.relative_to(package)}"


def test_pictures_and_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (README.parent / target).exists(), target
    headings = {
        re.sub(r"[^a-z -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    }
    for anchor in re.findall(r"\]\(#([^)]+)\)", TEXT):
        assert anchor in headings, anchor
