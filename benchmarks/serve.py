"""Requests per second and latency of `senthy serve`, beside a plain FastAPI server around a transformers pipeline.

    python benchmarks/serve.py load FILE.csv [--clients 1,8,64] [--encoder mini|DIR] [--onnx DIR]
    python benchmarks/serve.py soak FILE.csv --seconds 3600 [--share 0.8] [--every 60] [--json]
    python benchmarks/serve.py kills FILE.csv [--kills 20] [--json]

`load` sends single texts of the file with wrk (Debian: apt-get install wrk) over loopback, to both servers in turns;
medians of the turns are printed, and `cpu` is processor time per request. The plain server has the same encoder under
the classification head of transformers; `senthy` serves a linear head on that encoder, or its export. `--encoder mini`
is the shipped encoder; a directory may hold a configuration and a tokenizer only, and gets random weights then.

`soak` measures every minute what 64 clients reach in five seconds, sends a share of that in an open loop for the rest
of the minute, and notes memory, file descriptors and failures of the service: each minute as a line of JSON on standard
error, and all of them at the end. The client uses a part of the same processor.

`kills` ends the service at random moments, by SIGTERM and SIGKILL in turn, starts it again on the same port, and
compares every answer with that of the Predictor.

The service against its own schema: schemathesis run http://127.0.0.1:8000/openapi.json --checks all
--exclude-checks positive_data_acceptance (which labels a model has is no part of the schema).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import http.client
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from limits import as_json, machine, machine_lines

_PLAIN = """
import sys
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline
import uvicorn

classify = pipeline("text-classification", model=sys.argv[1], top_k=None)
app = FastAPI()


class Request(BaseModel):
    texts: list[str]


@app.get("/ready")
def ready():
    return {}


@app.post("/predict")
def predict(request: Request):
    return classify(request.texts, truncation=True, max_length=128)


uvicorn.run(app, port=int(sys.argv[2]), log_level="warning")
"""
_WRK = """
local bodies = {}
for line in io.lines("BODIES") do bodies[#bodies + 1] = line end
local at = 0
request = function()
  at = at % #bodies + 1
  return wrk.format("POST", "/predict", {["Content-Type"] = "application/json"}, bodies[at])
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %d, "seconds": %f, "p50": %f, "p95": %f, "p99": %f, "errors": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""
_SENTHY = [sys.executable, "-c", "import sys; from sentiment_hybrid.cli import main; main(sys.argv[1:])", "serve"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["load", "soak", "kills"])
    parser.add_argument("file", type=Path, help="csv with a column text")
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--encoder", default="mini")
    parser.add_argument("--onnx", type=Path, help="an export to serve instead")
    parser.add_argument("--share", type=float, default=0.8)
    parser.add_argument("--rate", type=float, help="requests per second of the soak, instead of a share")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two marks of the soak")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kill-clients", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = {"load": load, "soak": soak, "kills": kills}[options.what](options, Path(folder))
    report["machine"] = machine()
    print(as_json(report) if options.json else "\n".join([*report["lines"], machine_lines(report["machine"])]))
    return 0


def texts_of(path: Path, most: int = 5000) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in itertools.islice(csv.DictReader(file), most)]


# --- servers ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(command: list[str], port: int) -> Iterator[int]:
    """The process id of a server, once it is ready."""
    process = start(command, port)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(60)


def start(command: list[str], port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/ready")
            if connection.getresponse().status == 200:
                return process
        time.sleep(0.1)
    raise SystemExit(f"the server ended with {process.returncode}")


def senthy(model: Path | str, port: int, *more: str) -> list[str]:
    return [*_SENTHY, "--load-model-path", str(model), "--port", str(port), *more]


def made(encoder: str, folder: Path) -> tuple[Path, Path]:
    """(model directory of senthy, directory of transformers): linear heads with random weights on one encoder."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    from sentiment_hybrid import paths
    from sentiment_hybrid.config.schema import Config
    from sentiment_hybrid.engine.inference.model_directory import ModelInfo, save_model
    from sentiment_hybrid.models import build_head
    from sentiment_hybrid.models.classifier import Classifier
    from sentiment_hybrid.models.encoder.hub import load_encoder_dir
    from sentiment_hybrid.models.encoder.module import Encoder

    torch.manual_seed(0)
    source, place = paths.mini_dir() / "encoder" if encoder == "mini" else Path(encoder), folder / "encoder"
    config = AutoConfig.from_pretrained(source)
    weights = any(source.glob("*.safetensors"))
    model = AutoModel.from_pretrained(source, dtype=torch.float32) if weights else AutoModel.from_config(config)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)
    plain = AutoModelForSequenceClassification.from_pretrained(place, num_labels=3, dtype=torch.float32)
    plain.save_pretrained(folder / "plain")
    tokenizer.save_pretrained(folder / "plain")
    loaded = load_encoder_dir(place)
    shared = Encoder(loaded.model, 0)
    head = build_head("linear", Config().model("linear").head, input_size=shared.hidden_size, num_classes=3)
    info = ModelInfo(
        head="linear", head_config={}, labels=("negative", "neutral", "positive"), normalizer="tweet@2", max_length=128,
        max_windows=32, encoder_name="bench", encoder_revision=None, encoder_fingerprint=loaded.fingerprint,
        encoder_inside=True, trainable_layers=0, data_fingerprint="", split_fingerprint="", train_fingerprint="",
        run_id="bench", created="2026-01-01T00:00:00+00:00", train_rows=0,
    )  # fmt: skip
    save_model(folder / "senthy", classifier=Classifier(shared, head), encoder=loaded, info=info, bundle=True)
    return folder / "senthy", folder / "plain"


# --- load ------------------------------------------------------------------------------------------------------------


def load(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    bodies(texts_of(options.file), folder)
    model, plain = made(options.encoder, folder)
    script = folder / "plain.py"
    script.write_text(_PLAIN, encoding="utf-8")
    servers = {
        "senthy serve": senthy(options.onnx or model, 8311),
        "FastAPI + pipeline": [sys.executable, str(script), str(plain), "8312"],
    }
    rows = []
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(served(command, int(command[-1]))) for name, command in servers.items()}
        ports = {name: int(command[-1]) for name, command in servers.items()}
        for name in servers:
            wrk(folder, ports[name], 8, 3.0)  # warm
        for clients in map(int, options.clients.split(",")):
            turns: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
            for name in [*servers] * options.turns:
                turns[name].append(_turn(folder, ports[name], running[name], clients, options.seconds))
            rows += [{"server": name, "clients": clients, **_medians(found)} for name, found in turns.items()]
    lines = [
        f"{row['server']:<20} {row['clients']:>3} clients {row['rate']:>8.1f} requests/s   p50 {row['p50']:>8.1f} ms   "
        f"p95 {row['p95']:>8.1f} ms   p99 {row['p99']:>8.1f} ms   cpu {row['cpu']:>6.1f} ms   errors {row['errors']}"
        for row in rows
    ]
    return {"encoder": options.encoder, "rows": rows, "lines": lines}


def _turn(folder: Path, port: int, pid: int, clients: int, seconds: float) -> dict[str, Any]:
    before = processor_seconds(pid)
    found = wrk(folder, port, clients, seconds)
    return {**found, "cpu": 1000 * (processor_seconds(pid) - before) / max(1, found["requests"])}


def _medians(turns: list[dict[str, Any]]) -> dict[str, Any]:
    medians = {name: statistics.median(turn[name] for turn in turns) for name in ("rate", "p50", "p95", "p99", "cpu")}
    return {**medians, "errors": sum(turn["errors"] for turn in turns), "turns": turns}


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bodies(texts: list[str], folder: Path) -> None:
    (folder / "bodies").write_text("".join(f"{json.dumps({'texts': [text]})}\n" for text in texts), encoding="utf-8")


def wrk(folder: Path, port: int, clients: int, seconds: float) -> dict[str, Any]:
    script = folder / "wrk.lua"
    script.write_text(_WRK.replace("BODIES", str(folder / "bodies")), encoding="utf-8")
    command = ["wrk", "-t1", f"-c{clients}", f"-d{round(seconds)}s", "--timeout", "60s", "-s", str(script)]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=True, timeout=seconds + 120
    )
    found = json.loads(done.stdout.split("RESULT ")[1])
    return {**found, "rate": found["requests"] / found["seconds"]}


# --- soak ------------------------------------------------------------------------------------------------------------


def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    texts = texts_of(options.file)
    marks: list[dict[str, Any]] = []
    with served(senthy(options.onnx or "mini", 8311), 8311) as pid:
        asyncio.run(_traffic(texts, 5.0))  # warm
        until = time.monotonic() + options.seconds
        while time.monotonic() < until:
            marks.append({**_step(texts, options), **state_of(pid)})
            print(json.dumps(marks[-1]), file=sys.stderr, flush=True)  # what is known if this is ended early
    rest = marks[len(marks) // 4 :]  # after the first quarter
    spans = {
        name: [min(one[name] for one in rest), max(one[name] for one in rest)] for name in ("rss_mib", "descriptors")
    }
    totals = {name: sum(one[name] for one in marks) for name in ("seconds", "answered", "failed")}
    lines = [
        f"{totals['seconds']:.0f} s at {options.share:.0%} load: {totals['answered']} answered, "
        f"{totals['failed']} failed",
        *(f"{name}: {mark}" for name, mark in {"first": marks[0], "quarter": rest[0], "last": marks[-1]}.items()),
        *(f"{name} after the first quarter: {low} to {high}" for name, (low, high) in spans.items()),
    ]
    return {"share": options.share, **totals, **spans, "marks": marks, "lines": lines}


def _step(texts: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """A minute: what the service reaches now, in a twelfth of it, and the rest at a share of that."""
    fastest = asyncio.run(_traffic(texts, options.every / 12))
    rate = options.rate or options.share * fastest.per_second
    steady = asyncio.run(_traffic(texts, options.every * 11 / 12, rate=rate))
    return {
        "fastest": round(fastest.per_second, 1),
        "rate": round(rate, 1),
        "seconds": round(fastest.elapsed + steady.elapsed, 1),
        "answered": len(fastest.took) + len(steady.took),
        "failed": fastest.failed.total() + steady.failed.total(),
        "failures": dict(fastest.failed + steady.failed),
        "p50": steady.percentile(0.5),
        "p99": steady.percentile(0.99),
    }


def state_of(pid: int) -> dict[str, Any]:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    threads = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Threads"))
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
    return {"rss_mib": round(rss / 1024, 1), "descriptors": descriptors, "threads": threads}


class Traffic:
    """What came back: seconds of each answer, and how often each other response came."""

    def __init__(self) -> None:
        self.took: list[float] = []
        self.failed: Counter[str] = Counter()
        self.begun = time.monotonic()
        self.elapsed = 0.0

    @property
    def per_second(self) -> float:
        return len(self.took) / self.elapsed

    def percentile(self, share: float) -> float:
        """Milliseconds."""
        took = sorted(self.took) or [0.0]
        return round(1000 * took[int(share * (len(took) - 1))], 1)


async def _traffic(texts: list[str], seconds: float, *, rate: float = 0.0) -> Traffic:
    """Texts one by one over 64 connections: as fast as they are answered, or at a steady rate, whatever that takes.

    At a steady rate, a text that finds no connection free waits for one, and its time counts from when it was due.
    """
    bodies = [json.dumps({"texts": [text]}).encode() for text in texts]
    traffic = Traffic()
    due: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue(maxsize=0 if rate else 1)
    clients = [asyncio.create_task(_client(due, traffic)) for _ in range(64)]
    for number in itertools.count():
        at = traffic.begun + number / rate if rate else time.monotonic()
        if max(at, time.monotonic()) > traffic.begun + seconds:
            break
        if (wait := at - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        await due.put((at, bodies[number % len(bodies)]))
    for _ in clients:
        await due.put(None)
    await asyncio.gather(*clients)
    traffic.elapsed = time.monotonic() - traffic.begun
    return traffic


async def _client(due: asyncio.Queue[tuple[float, bytes] | None], traffic: Traffic) -> None:
    """One connection, opened again after a failure; plain HTTP, because a client library costs more than the answer."""
    connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
    while (one := await due.get()) is not None:
        try:
            connection = connection or await asyncio.open_connection("127.0.0.1", 8311)
            outcome = await asyncio.wait_for(_exchange(*connection, one[1]), 60)
        except (OSError, EOFError, ValueError) as error:  # a timeout is an OSError
            outcome = type(error).__name__
        if outcome == "200":
            traffic.took.append(time.monotonic() - one[0])
            continue
        traffic.failed[outcome] += 1
        if connection is not None:
            connection[1].close()
            connection = None
    if connection is not None:
        connection[1].close()


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> str:
    """The status of the response to one request; 200 only with one prediction in it."""
    head = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    writer.write((head % len(body)).encode() + body)
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    length = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length"))
    found = json.loads(await reader.readexactly(length))
    status = lines[0].split()[1]
    return "200 without a prediction" if status == "200" and len(found["predictions"]) != 1 else status


# --- kills -----------------------------------------------------------------------------------------------------------


def kills(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from sentiment_hybrid.engine.inference.predictor import Predictor

    texts = texts_of(options.file, 400)
    known = dict(zip(texts, Predictor("mini", precision="fp32").predict_proba(texts), strict=True))
    counts = {"right": 0, "wrong": 0, "unanswered": 0, "refused": 0}
    lock, over = threading.Lock(), threading.Event()
    command = senthy("mini", 8311, "--precision", "fp32")

    def client(seed: int) -> None:
        draw = random.Random(seed)
        while not over.is_set():
            asked = draw.sample(texts, draw.choice([1, 1, 1, 20]))
            kind = _asked(asked, known)
            with lock:
                counts[kind] += 1
            if kind != "right":
                time.sleep(0.05)

    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(options.kill_clients)]
    draw, codes = random.Random(0), []
    process = start(command, 8311)
    for one in clients:
        one.start()
    for number in range(options.kills):
        time.sleep(draw.uniform(0.3, 2.0))
        process.send_signal(signal.SIGTERM if number % 2 else signal.SIGKILL)
        codes.append(process.wait(60))
        process = start(command, 8311)
    over.set()
    for one in clients:
        one.join()
    process.terminate()
    codes.append(process.wait(60))
    return {"counts": counts, "exit_codes": codes, "lines": [f"{options.kills} kills: {counts}, exit codes {codes}"]}


def _asked(asked: list[str], known: dict[str, Any]) -> str:
    """How a request ended: right, wrong, refused (another status), unanswered (no whole response)."""
    connection = http.client.HTTPConnection("127.0.0.1", 8311, timeout=60)
    try:
        connection.request("POST", "/predict", json.dumps({"texts": asked}), {"Content-Type": "application/json"})
        response = connection.getresponse()
        body = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        return "unanswered"
    finally:
        connection.close()
    if response.status != 200:
        return "refused"
    found = [list(one["probabilities"].values()) for one in body["predictions"]]
    wanted = [known[text] for text in asked]
    return "right" if all(max(abs(a - b)) < 1e-3 for a, b in _arrays(found, wanted)) else "wrong"


def _arrays(found: list[list[float]], wanted: list[Any]) -> Iterator[tuple[Any, Any]]:
    import numpy as np

    if len(found) != len(wanted):
        yield np.ones(1), np.zeros(1)
    yield from ((np.array(a), b) for a, b in zip(found, wanted, strict=False))


if __name__ == "__main__":
    sys.exit(main())
