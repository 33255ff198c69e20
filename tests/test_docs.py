"""The documents: links and anchors resolve, command lines parse, settings exist, and no page is forgotten."""

from __future__ import annotations

import re
import runpy
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from sentiment_hybrid.cli import app
from sentiment_hybrid.config.load import load_config

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
SENTHY = typer.main.get_command(app)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
#: A word that stands for a value of one's own, as in `senthy predict --table NAME`.
_PLACEHOLDER = re.compile(r"^(?:\w+=)?[A-Z][A-Z_]*$")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site both make them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def command_lines(page: Path) -> list[str]:
    """Every `senthy ...` of a page: in blocks of shell commands, and in running text."""
    blocks = _FENCE.findall(page.read_text(encoding="utf-8"))
    shell = "\n".join(block for kind, block in blocks if kind in ("", "bash", "console")).replace("\\\n", " ")
    shell = shell.replace("-m sentiment_hybrid ", "&& senthy ")
    found = re.findall(r"(?:^|\$ |&& |srun )(senthy .*)$", shell, re.MULTILINE)
    return [*found, *re.findall(r"`(senthy [^`]*)`", prose(page).replace("\n", " "))]


def lines_of_all_pages() -> list[tuple[str, str]]:
    return [(name(page), line) for page in PAGES for line in command_lines(page)]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_and_anchor_resolves(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{target} leads nowhere"
        if page.parent == DOCS:
            assert linked.is_relative_to(DOCS), f"{target} leaves the site"
        if anchor:
            assert anchor in anchors(linked), f"{target}: no such heading"


@pytest.mark.parametrize(("page", "line"), lines_of_all_pages())
def test_every_command_line_names_a_command_and_options_that_exist(page, line):
    words = [word for word in shlex.split(line, comments=True)[1:] if word != "..."]
    if _PLACEHOLDER.match(words[0]) or words == ["--install-completion"]:
        return  # a pattern such as `senthy COMMAND --help`, or what would change the user's shell
    try:
        parse(SENTHY, words, "senthy")
    except typer.Exit:
        pass
    except typer.BadParameter as error:
        if type(error).__name__ == "MissingParameter":
            assert f"`{line}`" in prose(ROOT / page).replace("\n", " "), f"{line}: incomplete"
        else:
            assert error.param, f"{line}: {error.format_message()}"
            value = words[words.index(error.param.opts[0]) + 1]
            assert _PLACEHOLDER.match(value), f"{line}: {error.format_message()}"


def parse(command: Any, words: list[str], path: str) -> None:
    """Have typer parse a command line down to its last option, without running anything."""
    context = command.make_context(path, list(words))
    rest = [*context._protected_args, *context.args] if hasattr(command, "resolve_command") else []
    if rest:
        _, inner, words = command.resolve_command(context, rest)
        parse(inner, words, f"{path} {rest[0]}")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_setting_that_is_set_exists_and_may_have_its_value(page):
    settings = re.findall(r"--set ([\w.]+=[^\s`]+)", page.read_text(encoding="utf-8"))
    for setting in settings:
        if setting != "KEY=VALUE" and not _PLACEHOLDER.match(setting.partition("=")[2]):
            assert load_config("default", [setting])


def test_every_command_has_a_section():
    assert set(SENTHY.commands) <= anchors(DOCS / "commands.md")


def test_every_page_is_in_the_navigation():
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]
    listed = re.findall(r"'([\w-]+\.md)'", str(site["nav"]))
    assert sorted(listed) == sorted(page.name for page in DOCS.glob("*.md"))


def test_the_index_links_to_every_page_and_the_readme_to_all_but_it():
    pages = {page.name for page in DOCS.glob("*.md")} - {"index.md"}
    assert set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "index.md").read_text(encoding="utf-8"))) == pages
    linked = re.findall(r"\]\(docs/([\w-]+\.md)[)#]", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert set(linked) >= pages - {"contributing.md"}  # CONTRIBUTING.md links to it


def test_the_page_about_the_configuration_lists_every_section():
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", (DOCS / "data.md").read_text(encoding="utf-8"), re.MULTILINE)
    sections = set(re.findall(r"`(\w+)`", " ".join(rows)))
    assert set(load_config("default").model_dump()) <= sections


def test_the_tree_in_the_architecture_page_is_up_to_date():
    tree = runpy.run_path(str(ROOT / ".ci" / "tree.py"))
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert page == tree["page_with"](tree["tree"]()), "run: python .ci/tree.py --write"


def test_the_architecture_page_states_the_order_of_imports_that_is_checked():
    page = " ".join((DOCS / "architecture.md").read_text(encoding="utf-8").split())
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    orders = [" > ".join(one["layers"]) for one in linter["contracts"] if one["type"] == "layers"]
    assert len(orders) == 2
    assert [order for order in orders if f"`{order}`" not in page] == []


def test_the_architecture_page_names_the_commands_that_build_on_others():
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    listed = re.search(r"Only\s+(.*?)\s+build on other commands", page, re.DOTALL)
    folder = ROOT / "sentiment_hybrid" / "commands"
    building = {
        file.stem.replace("_", "-")
        for file in folder.glob("[!_]*.py")
        if re.search(r"^from sentiment_hybrid\.commands[. ]", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert listed
    assert set(re.findall("`(.*?)`", listed[1])) == {name for name in building if not name.startswith("predict")}


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1800
