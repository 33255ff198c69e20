"""`senthy review`: what people say of the answers in a file that `predict --review` wrote."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path

from sentiment_hybrid import console
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.review import CONTROL, OTHER, SURE_CONTROL, Reviewed, read_review
from sentiment_hybrid.engine.evaluation.triage import binomial
from sentiment_hybrid.errors import DataError, count

#: What the rows of a part are a sample of.
_ACCURACY_OF = {
    CONTROL: "all answers that are not in the first part",
    SURE_CONTROL: "the sure answers (not below the threshold) that are not in the first part",
}


def run(config: Config, file: Path) -> list[Reviewed]:
    """Count right answers among the rows that people have labelled.

    Raises:
        SourceError, ColumnError: the file cannot be read, or is no review file.
        DataError: no row has a label yet.
    """
    found = read_review(file, config.data)
    if not any(part.labelled for part in found):
        raise DataError(f"no row of {file} has a label yet", hint="Fill in its column label.")
    return found


def show(found: list[Reviewed], file: Path) -> None:
    """Print the accuracy of each part, with its exact interval."""
    rows = []
    for part in found:
        accuracy = "-"
        if part.labelled and part.part != OTHER:
            value, low, high = (100 * figure for figure in binomial(part.right, part.labelled))
            accuracy = f"{value:.1f} [{low:.1f}, {high:.1f}]"
        rows.append([part.part, f"{part.rows:,}", f"{part.labelled:,}", accuracy])
    console.table("", ["part", "rows", "labelled", "accuracy in percent"], rows)
    for part in found:
        if part.labelled and part.part in _ACCURACY_OF:
            console.say(f"The accuracy of the control rows is that of {_ACCURACY_OF[part.part]}.")
    for label, number in sum((Counter(part.unknown) for part in found), Counter()).items():
        console.warn(
            f"{count(number, 'row')} labelled {label!r}, which no answer in {file} is: is it spelled correctly?"
        )
    for part in found:
        if part.part == OTHER:
            console.warn(f"{count(part.rows, 'row')} not from predict --review: no accuracy is counted with them")
    labelled = sum(part.labelled for part in found)
    command = f"senthy finetune --finetune-data-path {shlex.quote(str(file))}"
    console.say(f"{count(labelled, 'row')} can be learned from: {command}")
