"""The training files of mini: what is held out is in none of them."""

from __future__ import annotations

import numpy as np
from made_up import texts
from prepare import keys_of, made_up_rows


def test_made_up_rows_have_no_copy_of_a_held_out_text() -> None:
    everything = [row.text for row in made_up_rows(300, [], np.empty(0, dtype=np.uint64))]
    assert everything == [text for text, _ in texts(300)]
    longer = [text for text in everything if len(text.split()) > 2]
    held, kept_out = longer[0], longer[-1]
    left = [row.text for row in made_up_rows(300, [held.upper() + "!"], keys_of([kept_out])[0])]
    assert not {held, kept_out} & set(left)
    assert len(left) >= 290, "the others stay"


def test_a_held_out_tweet_of_one_word_does_not_take_the_word_away() -> None:
    word = next(text for text, _ in texts(300) if len(text.split()) == 1)
    assert word in [row.text for row in made_up_rows(300, [], keys_of([word])[0])]
    assert word not in [row.text for row in made_up_rows(300, [word], np.empty(0, dtype=np.uint64))]
