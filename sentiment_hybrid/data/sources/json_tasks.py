"""JSON arrays: records, or tasks of Label Studio with the choices that annotators made."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from sentiment_hybrid.data.sources.base import BATCH_SIZE, LONGEST_LINE, MISSING, Batch, FileSource, opened
from sentiment_hybrid.data.sources.jsonl import keys_of, with_sound_keys, without_half_characters
from sentiment_hybrid.errors import SourceError

_READ = 1 << 20


class JsonSource(FileSource):
    """An array of objects, read one by one; the columns are the keys of the first ten thousand.

    A task of Label Studio (an object with ``data``) is a row: the fields of its data, and a column for each question
    with the choice of most annotators, or of the ground truth. A task without an annotation has no label yet, and one
    whose annotators disagree is a bad row.
    """

    _columns: list[str] | None = None
    _has_tasks = _answered = False

    @property
    def half_labelled(self) -> bool:
        """Whether rows may lack a label because nobody has labelled them yet: as in every project."""
        _ = self.columns
        return self._has_tasks

    @property
    def columns(self) -> list[str]:
        """Keys in order of first occurrence."""
        if self._columns is None:
            records = [record for record, _ in islice(self._records(), BATCH_SIZE)]
            # Before the first annotation, nobody knows the name of the question.
            unanswered = ["label"] if self._has_tasks and not self._answered else []
            self._columns = list(dict.fromkeys([*keys_of(records), *unanswered]))
        return self._columns

    def place(self, row: int) -> str:
        """The position in the array."""
        return f"{'task' if self._has_tasks else 'object'} {row}"

    def _tables(self, columns: Sequence[str], size: int) -> Iterator[Batch]:
        records, first = self._records(), 1
        while some := list(islice(records, size)):
            problems = {at: problem for at, (_, problem) in enumerate(some) if problem}
            values = {name: [record.get(name, MISSING) for record, _ in some] for name in columns}
            yield self._without(problems, Batch(range(first, first + len(some)), values))
            first += len(some)

    def _records(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Flat rows, or what is wrong with them."""
        for item in self._items():
            if not isinstance(item, dict):
                yield {}, f"no JSON object: {json.dumps(item)[:60]}"
            elif isinstance(item.get("data"), dict):
                self._has_tasks = True
                record, problem = _task(item)
                self._answered |= bool(problem) or len(record) > len(item["data"])
                yield record, problem
            else:
                yield with_sound_keys({key: without_half_characters(value) for key, value in item.items()})

    def _items(self) -> Iterator[Any]:
        """The elements of the array. Raises SourceError where it is none, or is damaged or cut off."""
        decoder, text, read = codecs.getincrementaldecoder("utf-8-sig")(), "", True
        parser, at, first = json.JSONDecoder(), 0, True
        with opened(self.path) as binary:
            while True:
                while at < len(text) and text[at] in " \t\r\n,":
                    at += 1
                if first and at < len(text):
                    if text[at] != "[":
                        raise self._damaged("it does not begin with [: it is no array of objects")
                    at, first = at + 1, False
                    continue
                if text[at : at + 1] == "]":
                    return
                try:
                    if at == len(text) or (not read and not text[at:].strip()):
                        raise ValueError("it is cut off")
                    item, end = parser.raw_decode(text, at)
                    if end == len(text) and read and not isinstance(item, dict | list):
                        raise ValueError("a number may go on")
                except (ValueError, RecursionError) as error:
                    if not read or len(text) - at > LONGEST_LINE or isinstance(error, RecursionError):
                        raise self._damaged(str(error)) from error
                    block = binary.read(max(_READ, len(text) - at))
                    read = bool(block)
                    text, at = text[at:] + decoder.decode(block, final=not read), 0
                    continue
                at = end
                yield item

    def _damaged(self, problem: str) -> SourceError:
        return SourceError(
            f"{self.name}: not a sound JSON array ({problem})",
            hint="Export the project of Label Studio as JSON, or use .jsonl for one object per line.",
        )


def _task(task: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The row of a task, or why it is none."""
    row, problem = with_sound_keys({key: without_half_characters(value) for key, value in task["data"].items()})
    annotations = [one for one in task.get("annotations") or () if isinstance(one, dict)]
    done = [one for one in annotations if not one.get("was_cancelled")]
    try:
        truth = [one for one in done if one.get("ground_truth")]
        votes: dict[str, Counter[str]] = {}
        for annotation in truth or done:
            for question, choice in _choices(annotation):
                votes.setdefault(question, Counter())[choice] += 1
        for question, counted in votes.items():
            row[question] = _majority(counted)
    except ValueError as error:
        return {}, f"{error} (id {task.get('id', 'none')})"
    return row, problem


def _choices(annotation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(question, choice) of an annotation. Raises ValueError for several choices of one question."""
    for result in annotation.get("result") or ():
        if not isinstance(result, dict) or result.get("type") != "choices":
            continue
        value = result.get("value")
        choices = value.get("choices") if isinstance(value, dict) else None
        if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
            raise ValueError("no choices in an annotation")
        if len(choices) > 1:
            raise ValueError(f"several labels: {', '.join(choices)}")
        if choices:
            yield str(result.get("from_name") or "label").strip(), without_half_characters(choices[0])


def _majority(votes: Counter[str]) -> str:
    """The choice of more than half of the annotators. Raises ValueError if there is none."""
    ((choice, most),) = votes.most_common(1)
    if 2 * most <= votes.total():
        raise ValueError("annotators disagree: " + ", ".join(f"{label} {number}" for label, number in votes.items()))
    return choice
