"""Texts in other languages are told from short, odd and misspelled ones in the main language."""

from __future__ import annotations

import numpy as np

from sentiment_hybrid.engine.insight.languages import find_other_languages

ENGLISH = [
    f"{start} {middle} {end}"
    for start in ("I think that", "they said the", "we never knew why the", "it is so good that the")
    for middle in ("weather in the city was", "flight to the coast is", "film about my friend was")
    for end in ("really nice today", "not what we wanted", "late again and nobody told us", "the best thing of all")
]
FOREIGN = {
    "fr": "je ne comprends pas pourquoi les gens aiment tellement cette histoire",
    "es": "no entiendo por qué la gente quiere tanto esta historia tan aburrida",
    "ru": "я не понимаю почему люди так любят эту историю",
    "ja": "どうしてみんながこの話をそんなに好きなのか分かりません",
}
ODD = [
    "ok",
    "lol :)",
    "😀😀😀",
    "http",
    "@user @user",
    "nooooooo waaaay whaaaat duuude",
    "#ThrowbackThursday #nofilter",
]


def test_foreign_texts_alone_are_found_with_their_language() -> None:
    texts = [*ENGLISH, *FOREIGN.values(), *ODD]
    main, found = find_other_languages(texts, np.arange(len(texts)))
    assert main == "en"
    assert {one.detail: texts[one.place] for one in found} == FOREIGN


def test_only_the_rows_asked_for_are_looked_at() -> None:
    texts = [*ENGLISH, *FOREIGN.values()]
    _, found = find_other_languages(texts, np.arange(len(ENGLISH)))
    assert found == []


def test_texts_without_words_have_no_language() -> None:
    assert find_other_languages(ODD[:5], np.arange(5)) == ("", [])
