"""Made-up English texts in which a negation decides: what smileys teach badly, for "not" goes with sad ones.

Every rule gives as many positive texts as negative ones, from word lists of its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

NEGATIVE, POSITIVE = 0, 1


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split("|" if "|" in text else None))


_GOOD = _words(
    "good great nice lovely fun helpful clean comfortable exciting tasty funny friendly quick easy clever "
    "beautiful cool reliable useful sweet fresh bright impressive perfect amazing awesome fantastic brilliant "
    "pleasant enjoyable smooth interesting decent excellent wonderful cheerful gentle safe smart solid strong "
    "special delicious"
)
_BAD = _words(
    "bad awful terrible boring rude dirty slow ugly horrible dull sad annoying broken useless noisy painful "
    "stupid scary lame disappointing rubbish crap gross nasty messy weak poor unfair unpleasant stressful "
    "tiring bland pathetic miserable dreadful frustrating confusing cheap grumpy harsh shabby stale sick"
)
_BEST = _words("best greatest nicest funniest cleanest easiest smartest friendliest prettiest tastiest smoothest")
_WORST = _words("worst dullest ugliest dirtiest slowest rudest saddest weakest nastiest noisiest lamest")
_THINGS = _words(
    "the food|the film|my phone|this song|the new album|the weather|the hotel|my job|the show|this book|"
    "the game|the bus|the coffee|her speech|the lesson|the party|my haircut|this laptop|the beach|the team|"
    "our trip|the exam|that update|the dentist|my room|the traffic|the flat|this app|the concert|the pizza|"
    "the meeting|the walk|his idea|the museum|the staff|my new shoes|the queue|the view|the ride|my morning|"
    "the training|dinner|breakfast|it|this|that"
)
_NOUNS = _words("day idea film place start week song choice plan night book show player meal lesson trip deal")
_LIKE = _words("like love enjoy want recommend trust")
_HATE = _words("hate mind regret dislike resent loathe")
_TROUBLE = _words("problems trouble issues complaints worries drama stress pain delays regrets errors")
_JOY = _words("fun luck hope help joy taste energy success support sense")
_OPENERS = ("", "", "", "", "", "@user ", "omg ", "honestly ", "well ", "tbh ", "ok ", "so ", "haha ", "lol ", "today ")
_ENDS = ("", "", "", "", "!", ".", "...", "!!", " lol", " today", " http", " tbh", " though", " #fact", " again")


class _Dice:
    """Random choices by name."""

    def __init__(self, random: np.random.Generator) -> None:
        self.random = random

    def of(self, items: tuple[str, ...]) -> str:
        return items[int(self.random.integers(len(items)))]

    def any(self, *items: str) -> str:
        return self.of(items)

    def word(self, label: int) -> str:
        return self.of(_GOOD if label else _BAD)


def negations(count: int, seed: int) -> tuple[list[str], list[int]]:
    """``count`` texts and their labels, NEGATIVE or POSITIVE in turn; the same for the same seed."""
    dice = _Dice(np.random.default_rng([seed, 0x6E6F74]))
    labels = [number % 2 for number in range(count)]
    return [_dressed(dice, _RULES[int(dice.random.integers(len(_RULES)))](dice, label)) for label in labels], labels


def _dressed(dice: _Dice, text: str) -> str:
    """As people write it: case, apostrophes, what stands before and after."""
    text = dice.of(_OPENERS) + text + dice.of(_ENDS)
    kind = dice.random.random()
    if kind < 0.15:
        text = text.replace("n't", "nt")
    elif kind < 0.25:
        text = text.replace("n't", "n’t")
    if dice.random.random() < 0.5:
        text = text[:1].upper() + text[1:]
    return text.upper() if dice.random.random() < 0.03 else text


def _is(dice: _Dice) -> str:
    return dice.any("is", "was", "looks", "feels", "sounds")


def _plain(dice: _Dice, label: int) -> str:
    return f"{dice.of(_THINGS)} {_is(dice)} {dice.any('', '', 'so ', 'really ', 'very ', 'pretty ')}{dice.word(label)}"


def _not(dice: _Dice, label: int) -> str:
    verb = dice.any("is not", "isn't", "was not", "wasn't", "ain't", "is never", "was never", "doesn't feel")
    extent = dice.any("", "", " at all", " in the least", " one bit")
    return f"{dice.of(_THINGS)} {verb} {dice.any('', '', 'that ', 'even ', 'really ')}{dice.word(1 - label)}{extent}"


def _not_alone(dice: _Dice, label: int) -> str:
    return f"{dice.any('not', 'not', 'never', 'not so', 'not too', 'not that')} {dice.word(1 - label)}" + dice.any(
        "", "", " at all", f" for {dice.of(_THINGS)}", f", {dice.of(_THINGS)}"
    )


def _not_a(dice: _Dice, label: int) -> str:
    start = dice.any(
        "not a", "that's not a", "this isn't a", "it was not a", "wasn't a", "hardly a", "never a", "not one"
    )
    return f"{start} {dice.word(1 - label)} {dice.of(_NOUNS)}{dice.any('', '', ' at all', ' for us', ' in years')}"


def _not_the_most(dice: _Dice, label: int) -> str:
    word = dice.of(_WORST if label else _BEST)
    what = dice.of(_THINGS)
    start = dice.any("not the", f"{what} isn't the", f"{what} wasn't the", "hardly the", "far from the")
    return f"{start} {word}{dice.any('', ' one', f' {dice.of(_NOUNS)}', ' ever', ' I have seen', ' out there')}"


def _verb(dice: _Dice, label: int) -> str:
    who = dice.any("I", "we", "my mum", "they", "people")
    one = who in ("my mum",)
    no = dice.any(
        "doesn't" if one else "don't", "didn't", "never", "does not" if one else "do not", "did not", "wouldn't"
    )
    verb = dice.of(_HATE if label else _LIKE)
    verb = verb if no != "never" or not one else f"{verb}s"
    return f"{who} {no} {dice.any('', '', 'really ', 'even ')}{verb} {dice.of(_THINGS)}{dice.any('', '', ' at all')}"


def _cannot(dice: _Dice, label: int) -> str:
    no = dice.any("can't", "cannot", "couldn't", "could not")
    verb = dice.any(
        "complain about", "fault", "criticise", "get enough of", "stop smiling about", "say a bad word about"
    )
    if not label:
        verb = dice.any(
            "recommend", "stand", "trust", "enjoy", "rely on", "see the point of", "say one good thing about"
        )
    return f"{dice.any('', 'I ', 'we ', 'you ')}{no} {verb} {dice.of(_THINGS)}"


def _without(dice: _Dice, label: int) -> str:
    noun = dice.of(_TROUBLE if label else _JOY)
    did = dice.any("got through the day", "we finished", "an hour", "the whole trip", "a week", "back home")
    return f"{did} {dice.any('without any', 'without', 'and no', 'with no', 'with zero', 'without the usual')} {noun}"


def _none(dice: _Dice, label: int) -> str:
    noun = dice.of(_TROUBLE if label else _JOY)
    return dice.any(
        f"no {noun} with {dice.of(_THINGS)}", f"there was no {noun}", f"zero {noun} so far", f"no more {noun}",
        f"we had no {noun} at all", f"there's no {noun} in {dice.of(_THINGS)}",
    )  # fmt: skip


def _nothing(dice: _Dice, label: int) -> str:
    word = dice.any(dice.word(1 - label), "wrong" if label else "right")
    return dice.any(
        f"nothing {word} about {dice.of(_THINGS)}", f"there's nothing {word} in {dice.of(_THINGS)}",
        f"found nothing {word} here", f"nobody said anything {word} about {dice.of(_THINGS)}",
    )  # fmt: skip


def _nobody(dice: _Dice, label: int) -> str:
    verb = dice.any("complained about", "hated", "minded", "was bored by") if label else dice.any(
        "liked", "enjoyed", "laughed at", "wanted", "cared for", "was happy with"
    )  # fmt: skip
    return f"{dice.any('nobody', 'no one', 'none of us', 'not one of my friends')} {verb} {dice.of(_THINGS)}"


def _could_not_be(dice: _Dice, label: int) -> str:
    word = (
        dice.any("better", "happier", "nicer", "prouder") if label else dice.any("worse", "sadder", "angrier", "duller")
    )
    never = dice.any("could not", "couldn't", "can not")
    return f"{dice.any('I', dice.of(_THINGS))} {never} be {word}"


def _far_from(dice: _Dice, label: int) -> str:
    much = dice.any(
        "far from", "anything but", "nowhere near", "not even close to", "the opposite of", "hardly", "barely"
    )
    return f"{dice.of(_THINGS)} {_is(dice)} {much} {dice.word(1 - label)}"


def _less(dice: _Dice, label: int) -> str:
    word = dice.word(1 - label)
    hoped = dice.any("I feared", "they say", "last time", "I thought", "expected")
    if not label:
        hoped = dice.any("I hoped", "they say", "last time", "I thought", "promised")
    form = dice.any(f"less {word} than {hoped}", f"not as {word} as {hoped}", f"not nearly as {word} as {hoped}")
    return f"{dice.of(_THINGS)} {_is(dice)} {form}"


def _no_longer(dice: _Dice, label: int) -> str:
    verb, word = dice.of(_HATE if label else _LIKE), dice.word(1 - label)
    return dice.any(
        f"I no longer {verb} {dice.of(_THINGS)}", f"I don't {verb} {dice.of(_THINGS)} anymore",
        f"{dice.of(_THINGS)} is no longer {word}", f"{dice.of(_THINGS)} isn't {word} any more",
        f"used to think {dice.of(_THINGS)} was {word}, not now",
    )  # fmt: skip


def _stopped(dice: _Dice, label: int) -> str:
    what = dice.of(_THINGS)
    if label:
        verb = dice.any("hurting", "crashing", "complaining", "crying", "freezing", "failing", "leaking")
        return dice.any(
            f"{what} {dice.any('finally ', '')}stopped {verb}", f"{what} never {dice.any('fails', 'failed')} to impress"
        )
    verb = dice.any("working", "smiling", "laughing", "improving", "caring", "helping", "trying")
    return dice.any(f"{what} {dice.any('just ', '')}stopped {verb}", f"{what} {dice.any('fails', 'failed')} to impress")


def _but(dice: _Dice, label: int) -> str:
    before, after = dice.word(1 - label), dice.word(label)
    first, second = dice.of(_THINGS), dice.of(_THINGS)
    return dice.any(
        f"{first} was {before} but {second} was {after}", f"a bit {before}, but {dice.any('so ', '')}{after}",
        f"{before} start, but a {after} {dice.of(_NOUNS)} in the end", f"although {first} was {before}, it was {after}",
        f"{first} looked {before} at first but turned out {after}", f"despite the {before} start, a {after} one",
    )  # fmt: skip


def _not_this_but(dice: _Dice, label: int) -> str:
    wrong, right = dice.word(1 - label), dice.word(label)
    return dice.any(
        f"it's not {wrong}, it's {right}", f"{dice.of(_THINGS)} isn't {wrong} but {right}",
        f"they said {wrong}, I say {right}", f"I thought it would be {wrong} and it's {right}",
        f"you call it {wrong}, it is {right}",
    )  # fmt: skip


def _twice(dice: _Dice, label: int) -> str:
    word, bad = dice.word(label), dice.word(1 - label)
    return dice.any(
        f"you can't say {dice.of(_THINGS)} isn't {word}",
        f"nobody can say {dice.of(_THINGS)} is not {word}", f"never not {word}", f"don't tell me it isn't {word}",
        f"no way {dice.of(_THINGS)} is {bad}", f"who says {dice.of(_THINGS)} is {bad}? it's not",
    )  # fmt: skip


def _wish(dice: _Dice, label: int) -> str:
    if label:
        return dice.any(
            f"wish {dice.of(_THINGS)} would never end", f"glad I didn't miss {dice.of(_THINGS)}",
            f"so happy we didn't skip {dice.of(_THINGS)}", f"don't want {dice.of(_THINGS)} to end",
        )  # fmt: skip
    return dice.any(
        f"wish {dice.of(_THINGS)} would end", f"wish I had missed {dice.of(_THINGS)}",
        f"sorry we didn't skip {dice.of(_THINGS)}", f"should never have tried {dice.of(_THINGS)}",
        f"wish {dice.of(_THINGS)} was {dice.word(1)}",
    )  # fmt: skip


_RULES: tuple[Callable[[_Dice, int], str], ...] = (
    _plain, _plain, _not, _not, _not, _not_alone, _not_alone, _not_a, _not_the_most, _verb, _verb, _cannot, _without,
    _none, _nothing, _nobody, _could_not_be, _far_from, _less, _no_longer, _stopped, _but, _not_this_but, _twice, _wish,
)  # fmt: skip
