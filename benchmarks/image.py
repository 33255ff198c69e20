"""Runs the steps of the Dockerfile in an empty folder, without Docker, and asks the service that comes out of it.

    python benchmarks/image.py EXPORT [--keep DIR]

EXPORT is a directory written by `senthy export`. Prints the size of what the image holds beside its base.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "a-token-for-this-check"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", type=Path)
    parser.add_argument("--keep", type=Path, help="an empty folder to build in, which stays")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = (options.keep or Path(folder)).resolve()
        entry = build(root)
        shutil.copytree(options.export.resolve(), root / "models" / "han_roberta_model_onnx")
        answer = ask(root, entry)
        size = sum(path.lstat().st_size for path in (root / "opt").rglob("*"))
        packages = sorted(path.name for path in (root / "opt").rglob("*.dist-info"))
    assert answer["predictions"][0]["label"] == "positive", answer
    assert not [name for name in packages if name.startswith(("torch-", "transformers-"))], packages
    print(f"answered {json.dumps(answer)}\n{len(packages)} packages, {size / 2**20:.0f} MiB: {', '.join(packages)}")
    return 0


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.M).replace("\\\n", " ")
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


def build(root: Path) -> list[str]:
    """Run the steps with ``root`` as the file system; returns the entry point."""
    place, entry = root, []
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    for name, words in instructions():
        if name == "WORKDIR":
            place = inside(root, words)
            place.mkdir(parents=True, exist_ok=True)
        elif name == "COPY" and not words.startswith("--from"):
            *sources, target = words.split()
            for source in sources:
                copy(ROOT / source, place / target / source if target.endswith("/") else place / target)
        elif name == "RUN" and not words.startswith("useradd"):
            step = words.replace("/opt/", f"{root}/opt/").replace("python -m", f"{sys.executable} -m")
            subprocess.run(step, shell=True, check=True, cwd=place, env=environment, stdout=sys.stderr)
        elif name == "ENTRYPOINT":
            entry = json.loads(words)
    return entry


def inside(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)


def ask(root: Path, entry: list[str]) -> dict[str, Any]:
    """Start the entry point on a free port, and ask for one prediction."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [f"{root}/opt/senthy/bin/senthy", *(word.replace("=/models", f"={root}/models") for word in entry[1:])]
    environment = {"PATH": "/usr/bin:/bin", "SENTHY_TOKEN": TOKEN, "SENTHY_HOME": str(root / "home")}
    print(shlex.join(command), file=sys.stderr)
    process = subprocess.Popen([*command, "--port", str(port)], env=environment, stdout=sys.stderr)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    body = json.dumps({"texts": ["not bad at all :)"]}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", body, headers)
    try:
        while process.poll() is None:
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return json.load(response)  # type: ignore[no-any-return]
            except urllib.error.URLError:
                time.sleep(0.2)
        raise SystemExit(f"the service ended with {process.returncode}")
    finally:
        process.terminate()
        assert process.wait(60) == 0


if __name__ == "__main__":
    sys.exit(main())
