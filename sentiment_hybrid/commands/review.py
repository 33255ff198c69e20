"""`senthy review`: what people say of the answers in a file that `predict --review` wrote."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path

from sentiment_hybrid import console
from sentiment_hybrid.config.schema import Config
from sentiment_hybrid.data.review import CONTROL, OTHER, SURE_CONTROL, Reviewed, read_review
from sentiment_hybrid.engine.evaluation.triage import binomial
from sentiment_hybrid.errors import DataError, UsageError, count

#: What the rows of a part are a sample of.
_ACCURACY_OF = {
    CONTROL: "all answers that are not in the first part",
    SURE_CONTROL: "the sure answers (not below the threshold) that are not in the first part",
}


def run(config: Config, file: Path) -> list[Reviewed]:
    """Count right answers among the rows that people have labelled.

    Raises:
        UsageError: it is a directory.
        SourceError, ColumnError: the file cannot be read, or is no review file.
        DataError: no row has a label yet.
    """
    if file.is_dir():
        raise UsageError(f"{file} is a directory", hint="Name the file that people have filled in.")
    found = read_review(file, config.data)
    if not any(part.labelled for part in found):
        tasks = "Label its tasks in Label Studio, and export the project as JSON."
        hint = tasks if file.suffix.lower() == ".json" else "Fill in its column label."
        raise DataError(f"no row of {file} has a label yet", hint=hint)
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
            f"{count(number, 'row')} labelled {label!r}, which is none of the answers in {file}: is it a typing error?"
        )
    for part in found:
        if part.part == OTHER:
            console.warn(f"{count(part.rows, 'row')} not from predict --review: no accuracy is counted with them")
    labelled = sum(part.labelled for part in found)
    command = f"senthy finetune --finetune-data-path {shlex.quote(str(file))}"
    console.say(f"{count(labelled, 'row')} can be learned from: {command}")
