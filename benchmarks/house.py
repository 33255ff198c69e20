"""How large and how tangled the package is, and how much of it runs for one answer.

    python benchmarks/house.py [ROOT]

Counts are static (ast) but for three runs under sys.setprofile: a prediction
of one text by the shipped model, `senthy train --model linear` on the bundled sample, and that training's way from the
command down to the first gradient: the files of commands/ and engine/ in which a function is on the stack then, or has
run since the first epoch began.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE = "sentiment_hybrid"
#: Libraries that a function may import where they are needed: each costs a tenth of a second or more.
HEAVY = {
    *(
        "accelerate",
        "filelock",
        "ftfy",
        "huggingface_hub",
        "joblib",
        "kagglehub",
        "matplotlib",
        "nltk",
        "numpy",
        "onnx",
    ),
    *("onnxruntime", "optuna", "pandas", "platformdirs", "pyarrow", "pydantic", "rich", "safetensors", "scipy"),
    *("sklearn", "sqlalchemy", "tokenizers", "torch", "transformers"),
}


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(tree: ast.AST, *, inside: bool = False, typing: bool = False) -> Iterator[tuple[ast.stmt, bool, bool]]:
    """Each import, whether it stands in a function, and whether only under TYPE_CHECKING."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, inside, typing
        function = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        checking = typing or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        yield from imports(node, inside=function, typing=checking)


def names(node: ast.stmt) -> list[str]:
    """Dotted names that an import statement may mean."""
    if isinstance(node, ast.ImportFrom):
        return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [alias.name for alias in node.names]


def circles(files: dict[str, Path]) -> list[list[str]]:
    """Groups of files that import one another, at the top or in functions; imports for type checkers do not count."""
    edges: dict[str, set[str]] = {}
    for module, path in files.items():
        targets = edges.setdefault(module, set())
        for node, _, typing in imports(ast.parse(path.read_text(encoding="utf-8"))):
            known = [name for name in names(node) if name in files and name != module]
            if not typing and known:
                # `from package import module` needs the module; the package itself is no file to read.
                targets.update(known[1:] or known)
    return [sorted(group) for group in components(edges) if len(group) > 1]


def components(edges: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in edges[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            at = stack.index(node)
            found.append(stack[at:])
            del stack[at:]

    for node in edges:
        if node not in index:
            visit(node)
    return found


def inner_imports(files: dict[str, Path]) -> tuple[int, int]:
    """Imports inside functions: all, and those of the package itself or of light libraries."""
    every = light = 0
    for path in files.values():
        if path.stem == "cli":  # commands are imported when they are called, so that --help is fast
            continue
        for node, inside, _ in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if inside:
                every += 1
                light += names(node)[0].partition(".")[0] not in HEAVY
    return every, light


PROFILED = """
import inspect, json, os, sys
root, what = sys.argv[1:3]
sys.path.insert(0, root)
package = os.path.join(root, "sentiment_hybrid") + os.sep
ran, way, deepest, started, reached = set(), set(), 0, False, False
def own(frame):
    place = frame.f_code.co_filename
    function = frame.f_code.co_flags & inspect.CO_OPTIMIZED  # not the body of a class, run once by an import
    return function and place.startswith(package) and not frame.f_code.co_name.startswith("<")
def profile(frame, event, argument):
    global deepest, started, reached
    if event != "call":
        return
    name = frame.f_code.co_name
    if started and not reached and name == "backward" and "accelerate" in frame.f_code.co_filename:
        reached = True
        while frame is not None:
            if own(frame):
                way.add(frame.f_code.co_filename)
            frame = frame.f_back
        return
    if not own(frame):
        return
    ran.add((frame.f_code.co_filename, name, frame.f_code.co_firstlineno))
    if name in ("_epoch_steps", "_epoch"):
        started = True
    if started and not reached:
        way.add(frame.f_code.co_filename)
    depth, above = 0, frame
    while above is not None:
        depth += own(above)
        above = above.f_back
    deepest = max(deepest, depth)
from sentiment_hybrid import cli
import torch
if what == "predict":
    import sentiment_hybrid.commands.predict, sentiment_hybrid.engine
    arguments = ["predict", "--offline", "not bad at all :)"]
elif what == "data":
    arguments = ["data", "--config", "quickstart"]
else:
    arguments = ["train", "--model", "linear", "--config", "quickstart", "--set", "linear.train.epochs=1"]
if what != "data":
    sys.setprofile(profile)
try:
    cli.main(arguments)
except SystemExit as end:
    code = end.code
sys.setprofile(None)
files = sorted(p for p in way if f"{os.sep}commands{os.sep}" in p or f"{os.sep}engine{os.sep}" in p)
lines = sum(sum(1 for _ in open(p, encoding="utf-8")) for p in files)
shown = [os.path.relpath(path, root) for path in files]
print(json.dumps({"code": code, "functions": len(ran), "depth": deepest, "way": shown, "lines": lines}))
"""


def profiled(root: Path, what: str, folder: str) -> dict[str, Any]:
    """Functions of the package that a command runs, how deep they nest, and the way to the first gradient."""
    done = subprocess.run(
        [sys.executable, "-c", PROFILED, str(root), what],
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={**os.environ, "SENTHY_HOME": folder, "OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "root", nargs="?", type=Path, default=Path(__file__).parents[1], help="a checkout; default: this"
    )
    root = parser.parse_args().root.resolve()
    files = modules(root)
    if not files:
        parser.error(f"{root} has no package {PACKAGE}")
    every, light = inner_imports(files)
    found = circles(files)
    with tempfile.TemporaryDirectory() as folder:
        profiled(root, "data", folder)
        predict, train = (profiled(root, what, folder) for what in ("predict", "train"))
    rows = [
        ("lines", sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files.values())),
        ("predict: functions / depth", f"{predict['functions']} / {predict['depth']}"),
        ("train --model linear: functions / depth", f"{train['functions']} / {train['depth']}"),
        ("to the gradient: files; lines", f"{len(train['way'])}; {train['lines']:,}"),
        ("imports in functions, without heavy libraries", f"{light} (all: {every})"),
        ("circles between files", len(found)),
    ]
    for name, value in rows:
        print(f"{name:48}{value}")
    print("way:", *train["way"])
    for group in found:
        print("circle:", *group)


if __name__ == "__main__":
    main()
