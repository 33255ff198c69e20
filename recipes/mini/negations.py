"""Made-up English texts in which a negation decides: what smileys teach badly, for "not" goes with sad ones.

Every rule gives as many positive texts as negative ones, from word lists of its own.

    python recipes/mini/negations.py COUNT SEED >negations.csv
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable

import numpy as np

NEGATIVE, POSITIVE = 0, 1


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split("|" if "|" in text else None))


_GOOD = _words(
    "good good good good great great nice lovely fun helpful clean comfortable exciting tasty funny friendly quick "
    "easy clever "
    "beautiful cool reliable useful sweet fresh bright impressive perfect amazing awesome fantastic brilliant "
    "pleasant enjoyable smooth interesting decent excellent wonderful cheerful gentle safe smart solid strong "
    "special delicious"
)
_BAD = _words(
    "bad bad bad bad awful terrible terrible boring rude dirty slow ugly horrible dull sad annoying broken useless "
    "noisy painful "
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
_TROUBLE = _words(
    "problems trouble issues complaints worries drama stress pain delays regrets errors hitches fuss queues traffic "
    "mistakes bugs crashes rain tears arguments injuries spam noise losses fees damage headaches setbacks surprises "
    "excuses bother tantrums nightmares"
)
_JOY = _words(
    "fun luck hope help joy taste energy success support sense smiles sleep sun wins clues answers goals laughs "
    "progress flavour signal refunds thanks rest warmth interest charm ideas comfort results friends respect magic"
)
#: Third person, past, gerund.
_WORKS = (
    ("works", "worked", "working"), ("helps", "helped", "helping"), ("wins", "won", "winning"),
    ("delivers", "delivered", "delivering"), ("listens", "listened", "listening"), ("smiles", "smiled", "smiling"),
    ("improves", "improved", "improving"), ("loads", "loaded", "loading"), ("replies", "replied", "replying"),
    ("turns up", "turned up", "turning up"), ("shines", "shone", "shining"), ("pays off", "paid off", "paying off"),
    ("delights me", "delighted me", "delighting me"), ("makes sense", "made sense", "making sense"),
    ("fits", "fitted", "fitting"), ("cheers me up", "cheered me up", "cheering me up"),
    ("gets better", "got better", "getting better"), ("makes me smile", "made me smile", "making me smile"),
)  # fmt: skip
_FAILS = (
    ("fails", "failed", "failing"), ("breaks", "broke", "breaking"), ("crashes", "crashed", "crashing"),
    ("hurts", "hurt", "hurting"), ("leaks", "leaked", "leaking"), ("complains", "complained", "complaining"),
    ("freezes", "froze", "freezing"), ("lies", "lied", "lying"), ("shouts", "shouted", "shouting"),
    ("lags", "lagged", "lagging"), ("moans", "moaned", "moaning"), ("lets me down", "let me down", "letting me down"),
    ("goes wrong", "went wrong", "going wrong"), ("annoys me", "annoyed me", "annoying me"),
    ("wastes my time", "wasted my time", "wasting my time"), ("gets worse", "got worse", "getting worse"),
    ("makes me cry", "made me cry", "making me cry"), ("breaks down", "broke down", "breaking down"),
)  # fmt: skip
_GLAD = _words("happy proud pleased satisfied calm relaxed hopeful excited comfortable confident impressed thrilled")
_SORRY = _words(
    "unhappy ashamed disappointed worried bored scared nervous lonely embarrassed miserable angry stressed upset sick"
)
_UN = _words(
    "unpleasant unkind unfair unhelpful unreliable unfriendly unlucky unsafe uninteresting unattractive unwelcome"
)
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

    def verb(self, label: int) -> tuple[str, str, str]:
        verbs = _WORKS if label else _FAILS
        return verbs[int(self.random.integers(len(verbs)))]


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
    if dice.random.random() < 0.08:
        text = _mistyped(dice, text)
    if dice.random.random() < 0.5:
        text = text[:1].upper() + text[1:]
    return text.upper() if dice.random.random() < 0.03 else text


def _mistyped(dice: _Dice, text: str) -> str:
    """Two letters of a word change places, or the word becomes a hashtag."""
    words = text.split(" ")
    at = int(dice.random.integers(len(words)))
    word = words[at]
    if dice.random.random() < 0.4 and word.isalpha():
        words[at] = f"#{word}"
    elif len(word) > 2:
        place = int(dice.random.integers(len(word) - 1))
        words[at] = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    return " ".join(words)


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
        "complain about",
        "fault",
        "criticise",
        "get enough of",
        "stop smiling about",
        "say a bad word about",
        "wait for",
        "beat",
        "resist",
        "imagine life without",
        "hate",
    )
    if not label:
        verb = dice.any(
            "recommend",
            "stand",
            "trust",
            "enjoy",
            "rely on",
            "see the point of",
            "say one good thing about",
            "bear",
            "cope with",
            "take any more of",
            "get used to",
            "forgive",
        )
    return f"{dice.any('', 'I ', 'we ', 'you ')}{no} {verb} {dice.of(_THINGS)}"


def _without(dice: _Dice, label: int) -> str:
    noun = dice.of(_TROUBLE if label else _JOY)
    did = dice.any(
        "got through the day", "we finished", "an hour", "the whole trip", "a week", "back home", "set it up",
        f"got through {dice.of(_THINGS)}", f"{dice.of(_THINGS)} went by", "they played", "two days", "it went by",
    )  # fmt: skip
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
    what = dice.of(_THINGS)
    if label:
        return dice.any(
            f"wish {what} would never end", f"glad I didn't miss {what}", f"so happy we didn't skip {what}",
            f"don't want {what} to end", f"I don't regret {what}", f"no regrets about {what}", f"glad I tried {what}",
            f"wish I had tried {what} sooner", f"wish I could have {what} again",
        )  # fmt: skip
    return dice.any(
        f"wish {what} would end", f"wish I had missed {what}", f"sorry we didn't skip {what}",
        f"should never have tried {what}", f"wish {what} was {dice.word(1)}", f"I regret {what}",
        f"wish I had never tried {what}", f"sorry that I tried {what}", f"wish I didn't have {what}",
    )  # fmt: skip


def _never(dice: _Dice, label: int) -> str:
    verb = dice.verb(1 - label)
    what = dice.of(_THINGS)
    return dice.any(
        f"{what} never {verb[0]}", f"{what} has never {verb[1]}", f"{what} hardly ever {verb[0]}",
        f"{what} rarely {verb[0]}", f"{what} no longer {verb[0]}", f"{what} hardly {verb[1]}",
        f"{what} finally stopped {verb[2]}" if label else f"{what} stopped {verb[2]}",
        f"{what} isn't {verb[2]} any more", f"not once has {what} {verb[1]}",
    )  # fmt: skip


def _feeling(dice: _Dice, label: int) -> str:
    word = dice.of(_SORRY if label else _GLAD)
    about = f"{dice.any('with', 'about', 'because of')} {dice.of(_THINGS)}"
    return dice.any(
        f"I am never {word} {about}", f"no longer {word} {about}", f"I'm not {word} {about}", f"not {word} at all",
        f"nobody was {word} {about}", f"we weren't {word} {about}", f"never been {word} {about}",
        f"I was not {word} for a moment", f"can't say I'm {word} {about}",
    )  # fmt: skip


def _hardly_any(dice: _Dice, label: int) -> str:
    noun = dice.of(_TROUBLE if label else _JOY)
    return dice.any(
        f"hardly any {noun} with {dice.of(_THINGS)}", f"barely any {noun} today", f"there was hardly any {noun}",
        f"few {noun}, if any", f"hardly a {dice.word(1 - label)} {dice.of(_NOUNS)} in {dice.of(_THINGS)}",
        f"lacks any {noun}", f"free of {noun}" if label else f"short of {noun}", f"not much {noun} there",
    )  # fmt: skip


def _enough(dice: _Dice, label: int) -> str:
    what, good, bad = dice.of(_THINGS), dice.word(1), dice.word(0)
    if label:
        return dice.any(
            f"{what} is {good} enough for me", f"not too {bad}, {what}", f"{what} is too {good} to miss",
            f"{what} wasn't too {bad}", f"{what} could hardly be more {good}", f"not {bad} enough to stop me",
        )  # fmt: skip
    return dice.any(
        f"{what} isn't {good} enough", f"not {good} enough for me", f"{what} is too {bad} to bear",
        f"{what} wasn't too {good}", f"{what} could hardly be more {bad}", f"nowhere near {good} enough",
    )  # fmt: skip


def _question(dice: _Dice, label: int) -> str:
    what, word = dice.of(_THINGS), dice.word(label)
    if label:
        return dice.any(
            f"isn't {what} {word}?", f"who doesn't love {what}?", f"what's not to like about {what}?",
            f"how could anyone hate {what}?", f"is there anything as {word} as {what}?",
            f"why would I ever leave {what}?",
        )  # fmt: skip
    return dice.any(
        f"isn't {what} {word}?", f"who on earth likes {what}?", f"what is there to like about {what}?",
        f"how could anyone love {what}?", f"why can't {what} be {dice.word(1)}?", f"why would anyone want {what}?",
    )  # fmt: skip


def _litotes(dice: _Dice, label: int) -> str:
    what = dice.of(_THINGS)
    if label:
        word = dice.of(_UN)
        return dice.any(
            f"not {word}, {what}", f"{what} is not {word}", f"{what} was not at all {word}", f"not {word} at all"
        )
    word = dice.word(1)
    return dice.any(
        f"{what} is not exactly {word}", f"{what} isn't what I'd call {word}",
        f"I've seen more {word} things than {what}",
        f"{what} is {dice.of(_UN)}", f"hardly what you call {word}",
    )  # fmt: skip


def _although(dice: _Dice, label: int) -> str:
    what, before = dice.of(_THINGS), dice.verb(1 - label)[1]
    noun, word, mine = dice.of(_TROUBLE if label else _JOY), dice.word(label), dice.of(_GLAD if label else _SORRY)
    return dice.any(
        f"although {what} {before}, I'm {mine}", f"despite the {noun}, I was {mine}",
        f"{what} was {word} despite the {noun}", f"even though {what} {before}, {word} in the end",
        f"{what} {before} but I'm still {mine}", f"in spite of all the {noun} a {word} {dice.of(_NOUNS)}",
    )  # fmt: skip


_RULES: tuple[Callable[[_Dice, int], str], ...] = (
    _plain, _plain, _not, _not, _not, _not_alone, _not_alone, _not_a, _not_the_most, _verb, _verb, _cannot, _without,
    _none, _nothing, _nobody, _could_not_be, _far_from, _less, _no_longer, _stopped, _but, _not_this_but, _twice, _wish,
    _never, _never, _never, _feeling, _feeling, _hardly_any, _hardly_any, _enough, _question, _litotes, _although,
)  # fmt: skip


def main(count: int, seed: int) -> None:
    """Write a CSV with the columns text and label to stdout."""
    writer = csv.writer(sys.stdout)
    writer.writerow(["text", "label"])
    texts, labels = negations(count, seed)
    writer.writerows((text, ("negative", "positive")[label]) for text, label in zip(texts, labels, strict=True))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
