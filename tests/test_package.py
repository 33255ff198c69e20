"""What the package is from outside: its public names, what importing it costs, what a wheel would hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

import sentiment_hybrid
from sentiment_hybrid import paths

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sentiment_hybrid"

HEAVY = (
    "torch",
    "transformers",
    "numpy",
    "pandas",
    "sklearn",
    "scipy",
    "nltk",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "kagglehub",
    "pyarrow",
    "ftfy",
    "accelerate",
    "optuna",
    "sqlalchemy",
    "huggingface_hub",
    "tokenizers",
    "fastapi",
    "uvicorn",
    "prometheus_client",
)


def loaded_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after ``code``."""
    script = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stderr.split())


HELP = """
from sentiment_hybrid import cli
try:
    cli.main({arguments!r})
except SystemExit as stop:
    assert not stop.code, stop.code
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run-all", "--help"], ["config", "show", "--help"]], ids=" ".join
)
def test_help_loads_no_heavy_library(arguments: list[str]) -> None:
    loaded = loaded_after(HELP.format(arguments=arguments))
    assert "sentiment_hybrid" in loaded
    assert not loaded & set(HEAVY)


def test_help_builds_no_config() -> None:
    code = HELP.format(arguments=["--help"]) + "assert 'sentiment_hybrid.config.schema' not in sys.modules"
    loaded_after(code)


@pytest.mark.parametrize("arguments", [["config", "show"], ["config", "schema", "--json"]], ids=" ".join)
def test_the_config_commands_load_no_heavy_library(arguments: list[str]) -> None:
    assert not loaded_after(HELP.format(arguments=arguments)) & set(HEAVY)


def test_an_error_in_the_configuration_is_reported_before_anything_heavy_is_loaded() -> None:
    commands = [
        *(["data"], ["train"], ["optimize"], ["pretrain"], ["test"], ["run-all"], ["predict", "good"], ["export"]),
        *(["finetune", "--finetune-data-path", "x.csv"], ["bench"], ["fetch"], ["info"], ["cache", "info"]),
        ["serve"],
    ]
    code = f"""
from sentiment_hybrid import cli
for words in {commands}:
    try:
        cli.main([*words, "--set", "nothing.such=1"])
    except SystemExit as stop:
        assert stop.code == 2, words
"""
    assert not loaded_after(code) & {"torch", "transformers", "pandas", "sklearn", "optuna", "accelerate"}


def test_importing_the_package_costs_nothing() -> None:
    loaded = loaded_after("import sentiment_hybrid; dir(sentiment_hybrid)")
    assert not loaded & {*HEAVY, "pydantic", "yaml", "typer", "rich"}


def test_every_public_name_is_there() -> None:
    assert set(sentiment_hybrid.__all__) == {
        *("Config", "Predictor", "__version__"),
        *("evaluate", "finetune", "load_config", "optimize", "train"),
    }
    assert dir(sentiment_hybrid) == sorted(sentiment_hybrid.__all__)
    for name in sentiment_hybrid.__all__:
        assert getattr(sentiment_hybrid, name) is not None
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = sentiment_hybrid.nothing_such


def test_python_m_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sentiment_hybrid", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == f"senthy {sentiment_hybrid.__version__}\n"


def test_everything_shipped_is_found() -> None:
    assert paths.shipped_configs()["default"].is_file()
    assert paths.sample_csv().is_file()


def test_every_subpackage_can_be_imported_by_a_wheel() -> None:
    packages = {path.parent for path in (ROOT / "sentiment_hybrid").rglob("*.py")}
    without = sorted(str(package) for package in packages if not (package / "__init__.py").is_file())
    assert without == []


def test_no_ignore_pattern_can_drop_a_package_from_the_wheel() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    named = {path.name for path in (ROOT / "sentiment_hybrid").rglob("*") if path.is_dir()} - {"__pycache__"}
    for pattern in ignored:
        assert pattern.strip("/") not in named or pattern.startswith("/"), pattern


#: Name on the package index -> name to import, where they differ.
MODULES = {
    "scikit-learn": "sklearn", "pyyaml": "yaml", "huggingface-hub": "huggingface_hub",
    "python-calamine": "python_calamine", "prometheus-client": "prometheus_client",
}  # fmt: skip


def dependencies() -> dict[str, str]:
    """Module -> the comment beside its requirement; those of some extras are imported by the package, too."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    found = {}
    for name, declared in (
        ("dependencies", project["dependencies"]),
        ("onnx", project["optional-dependencies"]["onnx"]),
        ("excel", project["optional-dependencies"]["excel"]),
        ("serve", project["optional-dependencies"]["serve"]),
        ("remote", project["optional-dependencies"]["remote"]),
        ("ray", project["optional-dependencies"]["ray"]),
    ):
        block = text.split(f"\n{name} = [", 1)[1].split("\n]", 1)[0]
        lines = re.findall(r'^\s*"([\w-]+)[^"]*",\s*# (.+)$', block, re.M)
        assert len(lines) == len(declared), "every dependency needs a comment"
        found |= {MODULES.get(module, module): comment for module, comment in lines}
    return found


def test_every_dependency_says_which_files_need_it_and_they_do() -> None:
    for module, comment in dependencies().items():
        places = re.findall(r"\w[\w/]*\.py|\w+/", comment.split(": ")[0])
        assert places, f"{module}: its comment names no file"
        for place in places:
            path = ROOT / "sentiment_hybrid" / place
            files = [path] if path.is_file() else list(path.rglob("*.py"))
            assert any(module in imported(file) for file in files), f"{place} does not import {module}"


def test_every_library_that_is_imported_is_a_dependency() -> None:
    known = {*sys.stdlib_module_names, *dependencies(), "sentiment_hybrid"}
    for file in PACKAGE.rglob("*.py"):
        assert imported(file) <= known, f"{file}: {imported(file) - known}"


def imported(file: Path, *, at_the_top: bool = False) -> set[str]:
    """Top-level names that a file imports anywhere, or (``at_the_top``) when it is itself imported."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = tree.body if at_the_top else ast.walk(tree)
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    nodes = tree.body if at_the_top else ast.walk(tree)
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("part", ["commands", "config", "data", "reporting", "cli.py", "console.py", "paths.py"])
def test_heavy_libraries_are_imported_where_they_are_needed_only(part: str) -> None:
    place = PACKAGE / part
    for file in [place] if place.is_file() else place.rglob("*.py"):
        # Arrays are what these are made of; no command loads them before it runs.
        allowed = {"numpy"} if part in ("data", "reporting") else set()
        # The file of a format is itself imported when such a file is read.
        own = {"pyarrow"} if file.name in ("fast_csv.py", "parquet.py") else set()
        assert not (imported(file, at_the_top=True) & set(HEAVY)) - allowed - own, file


def test_functions_are_short() -> None:
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                told = ast.get_docstring(node, clean=False)
                length = (node.end_lineno or 0) - node.lineno + 1 - (told.count("\n") + 1 if told else 0)
                assert length <= 60, f"{file.relative_to(ROOT)}: {node.name} has {length} lines"


def test_the_heavy_modules_of_these_tests_exist() -> None:
    # A misspelt name in HEAVY would make the tests above pass for nothing.
    assert [name for name in HEAVY if find_spec(name) is None] == []


def test_no_files_import_one_another_in_a_circle() -> None:
    spec = spec_from_file_location("house", ROOT / "benchmarks" / "house.py")
    assert spec is not None
    assert spec.loader is not None
    house = module_from_spec(spec)
    spec.loader.exec_module(house)
    files = house.modules(ROOT)
    assert len(files) > 50
    assert house.circles(files) == []
    assert house.inner_imports(files)[1] <= 60


def test_the_service_loads_only_what_its_image_without_torch_has() -> None:
    loaded = loaded_after("import sentiment_hybrid.serving.server, sentiment_hybrid.commands.serve")
    installed = {"fastapi", "uvicorn", "prometheus_client", "numpy", "ftfy", "tokenizers", "onnxruntime"}
    assert not loaded & (set(HEAVY) - installed)


def test_naming_the_formats_loads_no_library_of_theirs() -> None:
    assert not loaded_after("import sentiment_hybrid.data.sources") & {"pyarrow", "pandas"}


def test_what_people_are_told_to_install_is_in_the_checkout_and_exists() -> None:
    """The package is on no registry, where a stranger could take its name."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *PACKAGE.rglob("*.py")]
    said = "\n".join(file.read_text(encoding="utf-8") for file in files)
    assert not re.findall(r"pip install\W+sentiment-hybrid", said)
    named = {name for some in re.findall(r'pip install (?:-e )?"\.\[([\w,]+)\]"', said) for name in some.split(",")}
    assert {"excel", "onnx", "serve"} <= named <= set(extras)
