"""``make.sh``: its commands have settings and options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from sentiment_hybrid import cli
from sentiment_hybrid.config.load import load_config

RECIPE = Path(__file__).parents[2] / "recipes" / "mini"
SCRIPT = (RECIPE / "make.sh").read_text(encoding="utf-8").replace("\\\n", " ")
COMMANDS = [line for line in SCRIPT.splitlines() if re.match(r"\s*(resumable )?senthy ", line)]


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: line.split("senthy ")[1].split()[0])
def test_every_command_has_settings_and_options_that_exist(line: str) -> None:
    name, *words = shlex.split(re.sub(r"\$\{?[^}\s\"]*\}?", "some", line.split("senthy ")[1]))
    load_config(RECIPE / "mini.yaml", [words[at + 1] for at, word in enumerate(words) if word == "--set"])
    known = {option for each in typer.main.get_command(cli.app).commands[name].params for option in each.opts}
    assert {word for word in words if word.startswith("--")} <= known
