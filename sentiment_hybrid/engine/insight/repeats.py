"""What near-duplicates mean for a data set: labels that contradict each other, tests that were trained on, repeats."""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np

from sentiment_hybrid.engine.insight.duplicates import Duplicates, jaccard
from sentiment_hybrid.engine.insight.table import CONFLICT, LEAK, REPEAT, Finding, Table, place_of, split_name

#: What turns a sentiment round in a text that is else the same: such a pair is no contradiction.
_TURNS = re.compile(
    r"\b(?:no|not|nor|never|without|hardly|cannot)\b|n['’]t\b|[:;=8][-o']?[()\[\]dDpP/|\\]|[^\w\s\x00-\x7f]|\d+",
    re.IGNORECASE,
)


def find_repeats(table: Table, duplicates: Duplicates) -> list[Finding]:
    """Findings about the chosen rows that have a near-duplicate.

    A row is in conflict if a near-duplicate has another label and the same negations, emoticons, emoji and numbers,
    and the row's label is not that of most of them. A training row is a leak if a near-duplicate is in another split;
    a validation row, if one is in test. Of the others in a group, all but the first are repeats.
    """
    members: dict[int, list[int]] = defaultdict(list)
    groups = duplicates.groups
    shared = np.bincount(groups, minlength=len(groups))[groups] > 1  # (N,) by others
    for place in np.flatnonzero(shared).tolist():
        members[int(groups[place])].append(place)
    found: list[Finding] = []
    for group in members.values():
        found += _conflicts(table, group)
        found += _copies(table, group)
    return found


def _conflicts(table: Table, group: list[int]) -> list[Finding]:
    learned = [place for place in group if table.learned[place]]
    if len({int(table.labels[place]) for place in learned}) < 2:
        return []
    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place in learned:
        alike[tuple(sorted(turn.lower() for turn in _TURNS.findall(table.texts[place])))].append(place)
    found = []
    for places in alike.values():
        votes = np.bincount(table.labels[places])
        usual = int(votes.argmax()) if np.count_nonzero(votes == votes.max()) == 1 else -1
        if np.count_nonzero(votes) < 2:
            continue
        first_of_label: dict[int, int] = {}
        for place in places:
            first_of_label.setdefault(int(table.labels[place]), place)
        for place in places:
            if table.chosen[place] and table.labels[place] != usual:
                label = int(table.labels[place])
                other = next(one for known, one in first_of_label.items() if known != label)
                name = table.names[int(table.labels[other])]
                detail = f"{place_of(table, other)} is {name}: {table.raws[other]}"
                alike_by = jaccard(table.texts[place], table.texts[other])
                found.append(Finding(place, CONFLICT, alike_by, usual, detail))
    return found


def _copies(table: Table, group: list[int]) -> list[Finding]:
    """Leaks, where another split of higher rank has a near-duplicate, else repeats within a split."""
    found, first_of_split = [], dict[int, int]()
    highest = max(group, key=lambda one: _rank(table, one))
    for place in sorted(group, key=lambda one: int(table.rows[one])):
        number = int(table.splits[place])
        why = LEAK if _rank(table, highest) > _rank(table, place) else REPEAT
        other = highest if why == LEAK else first_of_split.get(number)
        first_of_split.setdefault(number, place)
        if table.chosen[place] and other is not None:
            alike = jaccard(table.texts[place], table.texts[other])
            found.append(Finding(place, why, alike, detail=f"{place_of(table, other)}: {table.raws[other]}"))
    return found


def _rank(table: Table, place: int) -> int:
    """A text that is in two splits belongs to test first, then to validation."""
    return ("train", "valid", "test").index(split_name(int(table.splits[place])))
