"""The models that ship in the package beside their rivals: one table, one run, the same rows.

    python benchmarks/mini.py --recipe FOLDER [--data FOLDER] [--split report] [--models FOLDER] [--rival NAME=DIR]

--recipe names what the recipe of mini writes: train.tsv, valid.tsv (the selecting tenth), report.tsv (the reporting
tenth), tweets_valid.tsv and tweets_test.tsv, each with the columns text, label, set. --data names the folder of
semeval/valid.tsv and airline/Tweets.csv. The selecting tenth and the tweets' validation split are evaluated by default;
`--split report` evaluates the reporting tenth and the tweets' test split, and is for the final figures alone.

Rivals: `lr`, a TF-IDF + logistic regression on the human-labelled rows of train.tsv (all sets but made-up ones), its C
chosen on the selecting tenth; VADER with nltk's word list (found by NLTK_DATA); any model directory by --rival, such as
a `linear` head that `senthy train` fitted to another frozen encoder.

A figure of two classes takes the negative and positive rows and renormalises the probabilities over these two labels.
A figure of three classes is left out for a model that has no neutral. Intervals are 95 % bootstrap intervals. Speed is
strings in, labels out, on tweets, contestants in turn.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from limits import as_json, machine, machine_lines, side_by_side, table
from mini_figures import MEASURES, Measure, against, apart, calibration_error, macro_f1, pairs_right, right
from mini_rows import LABELS, NEUTRAL, THREE, Rows, by_set, identity_terms, others, read_recipe, suites, words_of

from sentiment_hybrid import Predictor, paths
from sentiment_hybrid.engine.evaluation import baseline
from sentiment_hybrid.errors import SenthyError
from sentiment_hybrid.files import atomic_file
from sentiment_hybrid.reporting import canvas

HEADS = ("lstm", "han")
LOGISTIC, VADER = "lr", "VADER"
#: Rows from which on a set is compared with lr, and its calibration measured.
COMPARED_ROWS, CALIBRATED_ROWS = 300, 2000
#: Sets that are not texts labelled by people, and sst5, which has a figure of its own.
NOT_COMPARED = ("set: made-up", "set: tweeteval_emoji", "set: sst5")
_STRENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0)

Probabilities = Mapping[str, Mapping[str, np.ndarray]]  # of a contestant, of a sample: (N, 3)


@dataclass
class Contestant:
    """Raw texts in, probabilities (N, 3) of LABELS out; without ``neutral``, that column is 0."""

    name: str
    predict: Callable[[list[str]], np.ndarray]
    megabytes: float
    neutral: bool = True
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    arguments = parsed()
    # Before the first tokenizer makes its threads.
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    torch.set_num_threads(arguments.threads)
    try:
        report = compare(arguments)
    except SenthyError as error:
        raise SystemExit(f"{error.message}\n{error.hint or ''}".rstrip()) from error
    print(shown(report))
    if arguments.json:
        arguments.json.write_text(as_json(report), encoding="utf-8")
    if arguments.plot:
        draw(arguments.plot, report)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, required=True, help="folder of train.tsv, valid.tsv, report.tsv, ...")
    parser.add_argument("--data", type=Path, help="folder of semeval/valid.tsv and airline/Tweets.csv")
    parser.add_argument("--split", choices=["valid", "report"], default="valid")
    parser.add_argument("--models", type=Path, default=paths.mini_dir(), help="folder of encoder/, lstm/ and han/")
    parser.add_argument("--rival", action="append", default=[], metavar="NAME=DIR", help="another model directory")
    parser.add_argument("--precision", default="auto", help="auto, fp32 or int8, for all models")
    parser.add_argument("--rows", type=int, help="at most this many rows of each sample")
    parser.add_argument("--speed-rows", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=3, help="timed turns of each contestant")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-lr", action="store_true", help="leave out the logistic regression: it takes minutes")
    parser.add_argument("--no-speed", action="store_true")
    parser.add_argument("--cache", type=Path, default=paths.cache_dir(None), help="where the fitted lr is kept")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--plot", type=Path, help="draw macro-F1 on the airline tweets over speed: a PNG")
    arguments = parser.parse_args()
    if arguments.plot and (arguments.no_speed or not arguments.data):
        parser.error("--plot draws macro-F1 on the airline tweets over speed: give --data and leave out --no-speed")
    for name in ("rows", "speed_rows", "repeats", "threads"):
        if (number := getattr(arguments, name)) is not None and number < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more, not {number}")
    return arguments


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    samples = all_samples(arguments)
    contestants = [*models(arguments), *vader()]
    if not arguments.no_lr:
        contestants.append(logistic(arguments.recipe, arguments.cache))
    if not arguments.no_speed:
        race(contestants, speed_texts(arguments), arguments.repeats)
    found = {one.name: {name: one.predict(rows.texts) for name, rows in samples.items()} for one in contestants}
    sets = {name: rows for name, rows in samples.items() if name.startswith("set: ")}
    return {
        "what": "mini",
        "split": arguments.split,
        "contestants": [facts(one) for one in contestants],
        "figures": figures(contestants, samples, found),
        "sets": compared_sets(contestants, sets, found),
        "calibration": calibration(contestants, sets, found),
        "kinds": {name: kinds(samples[name], name, found) for name in ("facts", "negation", "behaviour")},
        "identity": {one.name: by_term(found[one.name]["identity"]) for one in contestants},
        "machine": machine(),
    }


def all_samples(arguments: argparse.Namespace) -> dict[str, Rows]:
    """Every sample by name; those whose file is missing are left out, with a note."""
    sets = by_set(read_recipe(arguments.recipe / f"{arguments.split}.tsv"))
    lexicons = [sets.pop(name) for name in list(sets) if name.startswith("lex_") and name != "lex_emotag"]
    found = {f"set: {name}": rows for name, rows in sets.items()}
    tweets = arguments.recipe / ("tweets_test.tsv" if arguments.split == "report" else "tweets_valid.tsv")
    if tweets.is_file():
        found["tweets"] = read_recipe(tweets)
    else:
        print(f"without the tweets: there is no {tweets}")
    if arguments.data:
        found |= others(arguments.data)
    if lexicons:
        found["lexicon"] = words_of(lexicons)
    return {name: rows.first(arguments.rows) for name, rows in found.items()} | suites()


# --- contestants -----------------------------------------------------------------------------------------------------


def models(arguments: argparse.Namespace) -> list[Contestant]:
    """The models of --models, then those of --rival."""
    folder, found = arguments.models, []
    for name in HEADS:
        if not (folder / name).is_dir():
            raise SystemExit(f"there is no model {folder / name}: --models names a folder of encoder/, lstm/ and han/")
        size = megabytes(folder / name) + megabytes(folder / paths.ENCODER_DIR)
        found.append(model(f"mini-{name}", folder / name, arguments.precision, size))
    for rival in arguments.rival:
        name, _, directory = rival.partition("=")
        found.append(model(name, Path(directory), arguments.precision, megabytes(Path(directory))))
    torch.set_num_threads(arguments.threads)  # opening a predictor may have lowered it
    return found


def model(name: str, directory: Path, precision: str, size: float) -> Contestant:
    one = Predictor(directory, device="cpu", precision=precision)
    unknown = set(one.labels) - set(LABELS)
    if unknown or not {"negative", "positive"} <= set(one.labels):
        raise SystemExit(f"{directory} has the labels {', '.join(one.labels)}, not {', '.join(LABELS)}")
    places = [LABELS.index(label) for label in one.labels]

    def predict(texts: list[str]) -> np.ndarray:
        result = np.zeros((len(texts), len(LABELS)))
        result[:, places] = np.nan_to_num(one.predict_proba(texts), nan=1 / len(places))  # NaN: an empty text
        return result

    return Contestant(name, predict, size, neutral="neutral" in one.labels)


def logistic(recipe: Path, cache: Path) -> Contestant:
    """TF-IDF + logistic regression on the human-labelled training rows, fitted once, then kept."""
    files = [recipe / "train.tsv", recipe / "valid.tsv"]
    fingerprint = hashlib.sha256(b"".join(path.read_bytes() for path in files if path.is_file())).hexdigest()[:20]
    path = cache / "benchmarks" / f"lr-{fingerprint}.npz"
    if not path.is_file():
        fitted = fit_logistic(*files)
        with atomic_file(path) as aside, aside.open("wb") as file:
            np.savez(file, **fitted)
    with np.load(path, allow_pickle=False) as kept:
        weights = {name: kept[name] for name in kept.files}
    vectorizer = tfidf(vocabulary=str(weights["vocabulary"]).split("\n"))
    vectorizer.idf_ = weights["idf"]

    def predict(texts: list[str]) -> np.ndarray:
        return softmax(vectorizer.transform(map(masked, texts)), weights["coefficients"], weights["intercept"])

    return Contestant(LOGISTIC, predict, megabytes(path))


def fit_logistic(train: Path, valid: Path) -> dict[str, Any]:
    """The weights at the C with the best macro-F1 in the mean over the sets of the selecting tenth."""
    from sklearn.linear_model import LogisticRegression

    rows = read_recipe(train)
    human = [at for at, name in enumerate(rows.kinds) if not name.startswith("made-up")]
    vectorizer = tfidf(min_df=2, max_features=baseline.MAX_FEATURES)
    features = vectorizer.fit_transform(masked(rows.texts[at]) for at in human)
    sets = [one for one in by_set(read_recipe(valid)).values() if len(one.classes()) > 1]
    held_out = [(one, vectorizer.transform(map(masked, one.texts))) for one in sets]
    best: dict[str, Any] = {"score": 0.0}
    for strength in _STRENGTHS:
        fitted = LogisticRegression(C=strength, max_iter=300).fit(features, rows.labels[human])
        weights = {"coefficients": fitted.coef_.astype(np.float32), "intercept": fitted.intercept_}
        score = np.mean([macro_f1(one, softmax(inputs, **weights)) for one, inputs in held_out])
        print(f"{LOGISTIC}: C {strength:g}, macro-F1 {100 * score:.2f} % in the mean over {len(sets)} sets", flush=True)
        if score < best["score"]:
            break
        best = {"score": score, "C": strength, **weights}
    return {**best, "idf": vectorizer.idf_, "vocabulary": "\n".join(vectorizer.get_feature_names_out())}


def tfidf(**settings: Any) -> Any:
    """Word 1- and 2-grams as in the package's own baseline."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    pattern = baseline.TOKEN_PATTERN
    return TfidfVectorizer(token_pattern=pattern, ngram_range=(1, 2), sublinear_tf=True, dtype=np.float32, **settings)


def masked(text: str) -> str:
    """The text with one word for all handles and one for all links."""
    return re.sub(r"@\w+", "@user", re.sub(r"https?://\S+", "http", text))


def softmax(inputs: Any, coefficients: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """Probabilities (N, 3) of inputs (N, F)."""
    logits = inputs @ coefficients.T + intercept
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = odds / odds.sum(axis=1, keepdims=True)
    return shares


def vader() -> list[Contestant]:
    """VADER: neutral for a compound within 0.05 of 0, its authors' threshold; of two classes, 0 is positive."""
    from nltk.sentiment.vader import SentimentIntensityAnalyzer

    try:
        analyzer = SentimentIntensityAnalyzer()
    except LookupError:
        print("without VADER: nltk's vader_lexicon is not there; set NLTK_DATA")
        return []

    def predict(texts: list[str]) -> np.ndarray:
        compound = np.array([analyzer.polarity_scores(text)["compound"] for text in texts])
        polar = np.column_stack([1.0 - compound, 1.0 + compound + 1e-9]) / 2
        neutral = np.abs(compound) < 0.05
        polar *= np.where(neutral, 0.4, 1.0)[:, None]
        return np.column_stack([polar[:, 0], np.where(neutral, 0.6, 0.0), polar[:, 1]])

    return [Contestant(VADER, predict, len(analyzer.lexicon_file.encode()) / 1e6)]


def megabytes(path: Path) -> float:
    """Of a file, or of all files in a folder; 10^6 bytes."""
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return sum(one.stat().st_size for one in files) / 1e6


# --- speed and figures -----------------------------------------------------------------------------------------------


def speed_texts(arguments: argparse.Namespace) -> list[str]:
    """Tweets of the test split: their labels are not looked at."""
    return read_recipe(arguments.recipe / "tweets_test.tsv").texts[: arguments.speed_rows]


def race(contestants: Sequence[Contestant], tweets: list[str], repeats: int) -> None:
    seconds = side_by_side({one.name: partial(one.predict, tweets) for one in contestants}, repeats=repeats)
    for one in contestants:
        one.seconds = [each / len(tweets) for each in seconds[one.name]]


def facts(one: Contestant) -> dict[str, Any]:
    speed = 1 / statistics.median(one.seconds) if one.seconds else None
    return {"name": one.name, "tweets/s": speed, "seconds per tweet": one.seconds, "MB": one.megabytes}


def figures(
    contestants: Sequence[Contestant], samples: Mapping[str, Rows], found: Probabilities
) -> list[dict[str, Any]]:
    """Each measure of which there are rows: every contestant's interval (None without neutral), and what to reach."""
    result = []
    for measure in MEASURES:
        if (rows := samples.get(measure.sample)) is None:
            continue
        values = {
            one.name: asdict(measure.of(rows, found[one.name][measure.sample]))
            if one.neutral or not measure.needs_neutral
            else None
            for one in contestants
        }
        result.append({"name": measure.name, "rows": len(rows), "values": values, **target(measure, values)})
    return result


def target(measure: Measure, values: Mapping[str, Any]) -> dict[str, float | None]:
    if measure.above_lr and LOGISTIC in values:
        return {"least": values[LOGISTIC]["value"] + measure.above_lr, "most": None}
    return {"least": measure.least, "most": measure.most}


def compared_sets(contestants: Sequence[Contestant], sets: Mapping[str, Rows], found: Probabilities) -> dict[str, Any]:
    """Macro-F1 of all, and the differences of ours from lr, on sets of texts with two labels or more."""
    chosen = {
        name: rows
        for name, rows in sets.items()
        if len(rows) >= COMPARED_ROWS and len(rows.classes()) > 1 and not name.startswith(NOT_COMPARED)
    }
    result: dict[str, Any] = {"rows": {name: len(rows) for name, rows in chosen.items()}, "macro_f1": {}, "against": {}}
    for one in contestants:
        own = {name: rows for name, rows in chosen.items() if one.neutral or NEUTRAL not in rows.classes()}
        mine = found[one.name]
        result["macro_f1"][one.name] = {name: macro_f1(rows, mine[name]) for name, rows in own.items()}
        if LOGISTIC in found and one.name not in (LOGISTIC, VADER):
            pairs = [(name, rows, mine[name], found[LOGISTIC][name]) for name, rows in own.items()]
            result["against"][one.name] = against(pairs)
    return result


def calibration(contestants: Sequence[Contestant], sets: Mapping[str, Rows], found: Probabilities) -> dict[str, Any]:
    """Calibration error on the sets with three labels and enough rows; VADER has no probabilities."""
    large = {name: rows for name, rows in sets.items() if len(rows) >= CALIBRATED_ROWS and rows.classes() == THREE}
    able = [one.name for one in contestants if one.neutral and one.name != VADER]
    return {name: {of: asdict(calibration_error(rows, found[of][name])) for of in able} for name, rows in large.items()}


def kinds(rows: Rows, name: str, found: Probabilities) -> dict[str, dict[str, float]]:
    """Shares right by kind, of every contestant; a pair counts once."""
    hits, step = (pairs_right, 2) if name == "negation" else (right, 1)
    of_rows = np.array(rows.kinds[::step])
    every = {one: hits(rows, probabilities[name]) for one, probabilities in found.items()}
    return {
        kind: {one: float(mine[of_rows == kind].mean()) for one, mine in every.items()}
        for kind in dict.fromkeys(of_rows.tolist())
    }


def by_term(probabilities: np.ndarray) -> dict[str, float]:
    """How far p_positive of each identity term is from the templates' means, in the mean over templates."""
    return dict(zip(identity_terms(), apart(probabilities).mean(0).tolist(), strict=True))


# --- tables and the plot ---------------------------------------------------------------------------------------------


def shown(report: Mapping[str, Any]) -> str:
    names = [one["name"] for one in report["contestants"]]
    parts = [table([figure_line(one, names) for one in report["figures"]], title=f"split: {report['split']}; %")]
    parts.append(table([set_line(name, report["sets"], names) for name in report["sets"]["rows"]], title="macro-F1, %"))
    for name, one in report["sets"]["against"].items():
        mean, below = interval(one["mean"]) if one["mean"] else "-", ", ".join(one["below"]) or "none"
        parts.append(f"{name} less {LOGISTIC}, mean of {len(one['sets'])} sets: {mean} (asked >= 3); below on: {below}")
    errors = [
        {"set": name.removeprefix("set: "), **{of: interval(one) for of, one in values.items()}}
        for name, values in report["calibration"].items()
    ]
    parts.append(table(errors, title="calibration error, % (asked <= 3)"))
    parts.append(table([{key: one[key] for key in ("name", "tweets/s", "MB")} for one in report["contestants"]]))
    return "\n\n".join([*(part for part in parts if part), machine_lines(report["machine"])])


def figure_line(one: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    asked = f">= {100 * one['least']:.1f}" if one["least"] else f"<= {100 * one['most']:.1f}" if one["most"] else ""
    values = {name: interval(one["values"][name]) if one["values"][name] else "n/a" for name in names}
    return {"figure": one["name"], "rows": one["rows"], **values, "asked": asked}


def set_line(name: str, sets: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    found = {of: sets["macro_f1"][of].get(name) for of in names}
    values = {of: "n/a" if value is None else f"{100 * value:.1f}" for of, value in found.items()}
    less = {
        f"{of} less {LOGISTIC}": f"{interval(one['sets'][name])} p {one['sets'][name]['p']:.3f}"
        if name in one["sets"]
        else "n/a"
        for of, one in sets["against"].items()
    }
    return {"set": name.removeprefix("set: "), "rows": sets["rows"][name], **values, **less}


def interval(figure: Mapping[str, float]) -> str:
    """``86.1 [85.9, 86.4]``, in percent."""
    value, low, high = (f"{100 * figure[name]:.1f}" for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def draw(path: Path, report: Mapping[str, Any]) -> None:
    """Macro-F1 on the airline tweets, two classes, over tweets a second, with intervals."""
    values = next(one["values"] for one in report["figures"] if one["name"] == "airline, 2 classes: macro-F1")
    title = f"Macro-F1 over speed, {report['machine']['threads']} CPU threads, 95 % intervals"
    with canvas.figure(path, (8.2, 5.2), title) as drawing:
        axes = drawing.subplots()
        for at, one in enumerate(report["contestants"]):
            figure = values[one["name"]]
            error = [[figure["value"] - figure["low"]], [figure["high"] - figure["value"]]]
            label = f"{one['name']}: {100 * figure['value']:.1f} %, {one['tweets/s']:,.0f}/s, {one['MB']:,.1f} MB"
            axes.errorbar(one["tweets/s"], figure["value"], yerr=error, fmt="osD^v*PX"[at % 8], capsize=4, label=label)
        axes.set_xscale("log")
        axes.yaxis.set_major_formatter(canvas.percent())
        axes.set(xlabel="tweets a second, strings in and labels out (log scale)", ylabel="macro-F1, airline tweets")
        axes.grid(True)
        axes.legend()


if __name__ == "__main__":
    main()
