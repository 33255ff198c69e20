"""`senthy explain`: the words that speak for a label and against it, of texts, or over many texts of a file."""

from __future__ import annotations

import gzip
import itertools
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from sentiment_hybrid import __version__, console, paths, tables
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.console import note, progress
from sentiment_hybrid.data.columns import find_text
from sentiment_hybrid.data.parts import open_parts
from sentiment_hybrid.data.sources import Source, open_source, read_with_progress, texts_of
from sentiment_hybrid.data.writers import kind_of_output
from sentiment_hybrid.engine.inference.explanations import DEFAULT_METHOD, Explanation, Method
from sentiment_hybrid.engine.inference.opening import find_model, open_model
from sentiment_hybrid.engine.inference.predictor import Predictor
from sentiment_hybrid.engine.insight.corpus import Corpus, CorpusWord
from sentiment_hybrid.errors import DataError, LabelError, UsageError, count
from sentiment_hybrid.files import is_file, is_same_file
from sentiment_hybrid.reporting.explanations import CORPUS_COLUMNS, write_explanations
from sentiment_hybrid.runtime import Runtime

#: Texts of a file that are explained unless another number is asked for, and words that are shown.
ROWS, TOP = 1000, 10
#: Texts that are explained together.
_TOGETHER = 64


@dataclass(frozen=True)
class Request:
    """What to explain, and how: the options of `senthy explain`.

    Args:
        corpus: a file of texts, of which ``rows`` chosen at random are explained together.
        resume: continue the ``output`` of a stopped run.
    """

    texts: Sequence[str] = ()
    _: KW_ONLY
    config: Config
    model_dir: Path | None = None
    head: str | None = None
    corpus: Path | None = None
    text_column: str | None = None
    rows: int = ROWS
    label: str | None = None
    method: Method = DEFAULT_METHOD
    top: int = TOP
    html: Path | None = None
    output: Path | None = None
    resume: bool = False


@dataclass(frozen=True)
class ExplainResult:
    """Explanations of texts; or over the texts of a corpus, the words of each label and its number of texts."""

    model_dir: Path
    method: Method
    explanations: list[Explanation]
    words: dict[str, list[CorpusWord]] | None = None
    corpus: str = ""
    texts: Mapping[str, int] = field(default_factory=dict)
    output: Path | None = None

    def to_dict(self) -> Any:
        """As plain values, for JSON."""
        if self.words is None:
            return [one.to_dict() for one in self.explanations]
        return {
            "corpus": self.corpus,
            "texts": sum(self.texts.values()),
            "method": self.method,
            "labels": {label: [_figures(word) for word in words] for label, words in self.words.items()},
        }


def _figures(word: CorpusWord) -> dict[str, Any]:
    figures = {"mean": round(word.mean, 4), "total": round(word.total, 4)}
    return {"word": word.word, "texts": word.texts, **figures, "example": word.example}


def run(request: Request, runtime: Runtime = Runtime()) -> ExplainResult:
    """Explain texts, or the texts of a file together; writes a page if one is asked for.

    Raises:
        UsageError: no texts, or texts and a file, or a label that the model does not have.
        SourceError, ColumnError: the file cannot be read.
        DataError: the file has no texts.
        ModelError: the model cannot be loaded, or not be explained.
        OutputError: the page cannot be written.
    """
    _check_usage(request)
    for text in filter(is_file, request.texts):
        note(f"{text} is explained as a text; for the texts in this file: --corpus {shlex.quote(text)}")
    config = request.config
    directory = find_model(config.paths.models_dir, request.model_dir, request.head)
    predictor = open_model(directory, config, runtime, head=request.head)
    if request.corpus is None:
        result = ExplainResult(directory, request.method, list(_explained(predictor, request.texts, request)))
    else:
        result = _of_corpus(open_source(str(request.corpus), config.data, offline=True), request, predictor, directory)
    if request.html is not None:
        _write_page(request.html, result)
        note(f"page: {request.html}")
    return result


def _check_usage(request: Request) -> None:
    if request.texts and request.corpus is not None:
        raise UsageError("both texts and --corpus were given", hint="Use only one of them.")
    if not request.texts and request.corpus is None:
        raise UsageError(
            "nothing to explain",
            hint='Give texts ("what a day") or --corpus FILE; for each row of a file, use senthy predict --explain.',
        )
    if request.corpus is None and (request.text_column or request.rows != ROWS or request.output):
        raise UsageError("--text-column, --rows and --output apply to --corpus FILE", hint="Leave them out.")
    if request.resume and request.output is None:
        raise UsageError("--resume needs --output FILE", hint="Name the file of the run that was stopped.")
    if request.output is not None and kind_of_output(request.output) != "jsonl":
        raise UsageError(f"--output {request.output} is not JSON Lines", hint="Name it .jsonl or .jsonl.gz.")
    if request.output is not None and request.corpus is not None and is_same_file(request.output, request.corpus):
        raise UsageError(f"--output is the same file as --corpus: {request.corpus}", hint="Choose another output file.")
    if request.html is not None and request.html.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--html {request.html} is not the name of a page", hint="Name it .html.")


def _sample(source: Source, column: str, request: Request) -> list[str]:
    """Distinct texts chosen at random, all rows with the same chance; no more than these are held."""
    import numpy as np

    random = np.random.default_rng(request.config.project.seed)
    kept: list[str] = []
    seen = 0
    with read_with_progress(source, [column]) as batches:
        for batch in batches:
            for text in texts_of(batch, column, source=source.name):
                if not text or not text.strip():
                    continue
                seen += 1
                if len(kept) < request.rows:
                    kept.append(text)
                elif (place := int(random.integers(seen))) < request.rows:
                    kept[place] = text
    if not kept:
        raise DataError(f"{source.name} has no texts", hint="Is it the right text column (--text-column)?")
    if seen > len(kept):
        note(f"{len(kept):,} of {seen:,} texts are explained, chosen at random (--rows)")
    return list(dict.fromkeys(kept))


def _of_corpus(source: Source, request: Request, predictor: Predictor, directory: Path) -> ExplainResult:
    column = find_text(source.columns, request.text_column, source=source.name, trained_on=predictor.info.text_column)
    texts = _sample(source, column, request)
    corpus = Corpus(predictor.labels)
    explanations = (
        _explained(predictor, texts, request)
        if request.output is None
        else _through_file(request.output, source, column, texts, request, predictor)
    )
    for one in explanations:
        corpus.add(one)
    words = corpus.strongest(request.top)
    return ExplainResult(directory, request.method, [], words, source.name, corpus.texts, request.output)


def _explained(predictor: Predictor, texts: Sequence[str], request: Request, *, done: int = 0) -> Iterator[Explanation]:
    """Explain texts, some together, but for the first ``done``, which a stopped run has explained."""
    cut = 0
    try:
        with progress("explaining", total=len(texts), unit="texts") as bar:
            bar.skip(done)
            for start in range(done, len(texts), _TOGETHER):
                part = texts[start : start + _TOGETHER]
                found = predictor.explain(part, label=request.label, method=request.method, progress=bar.advance)
                cut += sum(one.unread > 0 for one in found)
                yield from found
    except LabelError as error:
        raise UsageError(error.message, hint=error.hint) from error
    if cut:
        windows, length = predictor.info.max_windows, predictor.info.max_length
        note(f"{count(cut, 'text')} cut after {windows} x {length} tokens; the rest was not read and is not explained")


def _through_file(
    output: Path, source: Source, column: str, texts: Sequence[str], request: Request, predictor: Predictor
) -> Iterator[Explanation]:
    """Write the explanations, after those of a stopped run, and read all of them back."""
    columns = list(Explanation("").to_dict())
    options = {"column": column, "seed": request.config.project.seed}
    options |= {name: getattr(request, name) for name in ("rows", "label", "method")}
    key = {"input": source.fingerprint(), "model": predictor.identity, "options": options, "version": __version__}
    with open_parts(output, columns) as parts:
        parts.find(key, resume=request.resume, done="explained")
        done = parts.facts.get("rows", 0)
        explanations = _explained(predictor, texts, request, done=done)
        while part := list(itertools.islice(explanations, _TOGETHER)):
            done += len(part)
            rows = [one.to_dict() for one in part]
            parts.write([{name: [row[name] for row in rows] for name in columns}], {"rows": done})
    with (gzip.open if output.suffix.lower() == ".gz" else open)(output, "rt", encoding="utf-8") as file:
        yield from (Explanation.of_dict(json.loads(line)) for line in file)


def _write_page(path: Path, result: ExplainResult) -> None:
    directory = result.model_dir
    name = f"{paths.MINI}-{directory.name}" if directory.parent == paths.mini_dir() else directory.name
    about = f"Model {name}; {_MEANING[result.method]}"
    texts = [one.to_dict(places=True) for one in result.explanations]
    words = {label: [_row(word) for word in words] for label, words in (result.words or {}).items()}
    title = "Explanations" if result.words is None else f"Words of {count(sum(result.texts.values()), 'text')}"
    write_explanations(path, texts, words, title=title, about=about)


_MEANING: dict[Method, str] = {
    "gradients": "weights are what a word adds to the logit of the label (integrated gradients). Green words speak for "
    "the label, red words with a dotted line against it.",
    "attention": "weights are the attention of the head.",
}


def _row(word: CorpusWord) -> list[str]:
    return [word.word, word.example, f"{word.texts:,}", f"{word.mean:+.2f}", f"{word.total:+.1f}"]


def show(result: ExplainResult, *, top: int = TOP) -> None:
    """Print texts with their words marked, and tables of the largest weights; or the words of each label."""
    if result.words is None:
        for one in result.explanations:
            tables.explanation(one, top=top)
        return
    for label, words in result.words.items():
        title = f"{label}: {count(result.texts[label], 'text')}"
        console.table(title, CORPUS_COLUMNS, [_row(word) for word in words], left=2)
    if result.output is not None:
        console.say(f"{result.output}: the explanations of {count(sum(result.texts.values()), 'text')}")
