"""Made-up verdicts: scores ("4/5", "one star", ★★☆☆☆), set phrases ("could be better", "can't fault it") and measures.

    python recipes/mini/verdicts.py COUNT [SEED] > verdicts.tsv

Reviews give their score in a column of its own, so that a model that has read only their texts does not know what "1 star"
says. Set phrases often mean the opposite of their words, and a measure ("the film is two hours long") means nothing.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator

NEGATIVE, NEUTRAL, POSITIVE = "negative", "neutral", "positive"


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split("|")]


_NUMBER_WORDS = _split("zero|one|two|three|four|five")
_THINGS = _split(
    "movie|film|book|album|game|hotel|room|place|restaurant|pizza|coffee|phone|laptop|app|headphones|show|episode|concert|course|teacher|service|"
    "delivery|staff|food|burger|camera|update|product|keyboard|jacket|shoes|trip|tour|museum|podcast|series|season|ending|match|performance"
)
_AROUND_SCORE = {
    POSITIVE: _split("{s}|{s}|{s} from me|i give it {s}|i'd give it {s}|{s} for the {t}|the {t}: {s}|a solid {s}|an easy {s}|{s}, would recommend|"
                     "{s} would go again|{s}, would buy again|rating: {s}|{t}: {s}|{s}!|deserves {s}|well deserved {s}|my rating is {s}"),
    NEUTRAL: _split("{s}|{s}|{s} from me|i give it {s}|i'd give it {s}|{s} for the {t}|the {t}: {s}|rating: {s}|{t}: {s}|maybe {s}|{s} i guess|"
                    "{s}, nothing more, nothing less|my rating is {s}|somewhere around {s}"),
    NEGATIVE: _split("{s}|{s}|{s} from me|i give it {s}|i'd give it {s}|{s} for the {t}|the {t}: {s}|rating: {s}|{t}: {s}|{s} and that is generous|"
                     "{s}, would not recommend|{s}, never again|{s} would not go again|barely {s}|only {s}|just {s}|my rating is {s}"),
}  # fmt: skip
_PHRASES = {
    POSITIVE: _split(
        "couldn't be better|could not be better|nothing could be better|couldn't be happier|could not be happier with it|couldn't ask for more|"
        "can't complain|cannot complain|no complaints|no complaints at all|no complaints here|nothing to complain about|can't fault it|"
        "cannot fault the {t}|hard to fault|hard to beat|can't be beaten|can't beat it|nothing beats this|no regrets|zero regrets|"
        "would buy again|would order again|would do it all over again|never disappoints|does not disappoint|did not disappoint|"
        "the {t} did not disappoint|hasn't let me down yet|never let me down|second to none|exceeded my expectations|beyond my expectations|"
        "better than expected|better than i expected|much better than the old one|a big step up|pleasantly surprised|worth every cent|"
        "worth the wait|worth the money|totally worth it|money well spent|a must have|a must see|a must read|hits the spot|nailed it|"
        "knocked it out of the park|blew me away|blown away|over the moon|on cloud nine|it doesn't get better than this|doesn't get any better|"
        "they fixed it in minutes|they solved it within an hour|problem solved in five minutes|they sorted it out the same day|"
        "sorted in no time|still going strong after {n} years|works like a charm|works like new|runs like a dream|works perfectly|"
        "works as it should|it just works|no issues|no issues so far|no problems whatsoever|not a single problem|never had a problem with it|"
        "arrived a day early|came earlier than promised|the battery lasts all day|the battery lasts for days|so easy to set up|"
        "i could watch it again and again|can't put it down|couldn't stop smiling|couldn't stop laughing|laughed until i cried|"
        "cried tears of joy|can't get enough|can't get enough of this {t}|can't live without it|never been happier|i have never been so happy|"
        "the best {t} in years|the {t} is to die for|i needed that|you made my day|this made my week|keep up the good work|two thumbs up|"
        "thumbs up|thumbs up from me|hats off|chef's kiss|a keeper|five star {t}|top of the class|my new favourite {t}|love at first sight"
    ),
    NEUTRAL: _split(
        "so-so|so so|average|about average|the {t} is average|nothing special|nothing out of the ordinary|nothing to write home about|"
        "middle of the road|run of the mill|neither good nor bad|neither here nor there|take it or leave it|no strong feelings|"
        "no strong feelings either way|could go either way|i have no opinion|no opinion|it is what it is|does what it says|"
        "does what it says on the tin|it does the job, nothing more|it's alright i suppose|fine i suppose|it's ok|it's just ok|it was okay|"
        "could have been worse, could have been better|not bad, not great|i've seen worse, i've seen better|hit and miss|hit or miss|"
        "mixed feelings|mixed feelings about the {t}|i'm in two minds|the jury is still out|undecided|still undecided about the {t}|"
        "on the fence|on the fence about this {t}|50/50|it depends|i don't mind either way|i can take it or leave it|same as before|"
        "same as the last one|no better and no worse than the others|comparable to the others|the {t} is like any other|as described|"
        "it is a {t}|just a {t}|it exists|we will see|too early to say|ask me again in a month|has its ups and downs|good and bad in equal parts"
    ),
    NEGATIVE: _split(
        "could be better|could be a lot better|the {t} could be better|could have been better|could have been so much better|"
        "should have been better|couldn't be worse|could not be worse|could hardly be worse|it doesn't get worse than this|"
        "leaves a lot to be desired|leaves much to be desired|left a bad taste|not up to scratch|not up to standard|not what i paid for|"
        "not what was advertised|not worth it|not worth the hype|not worth the wait|not worth a penny|wouldn't touch it again|"
        "would not buy again|would not order again|i'd rather not do that again|save your money|save your time|don't bother|don't waste your time|"
        "avoid|avoid at all costs|steer clear|stay away|a letdown|what a letdown|a big letdown|let me down again|falls short|fell short|"
        "less than impressed|not impressed|not impressed at all|unimpressed|underwhelming|overpriced|overrated|so overrated|"
        "worse than expected|worse than the last one|the old version was better|the book was better|i've seen better|i've had better|"
        "there are better ones|i expected more|i expected better|expected so much more|i want my money back|i regret buying it|"
        "i regret every minute|had enough|i've had enough of this|fed up|the last straw|fell apart after {n} days|"
        "stopped working after {n} days|broke on day one|broke after {n} weeks|nothing works|nothing works anymore|it never worked|"
        "the battery barely lasts an hour|the battery only lasts {n} hours|arrived broken|arrived {n} weeks late|never arrived|too expensive|"
        "too slow|way too slow|way too long|{n} hours too long|i'll never get those {n} hours back|i want those {n} hours of my life back|"
        "i fell asleep|fell asleep halfway|walked out halfway|couldn't finish it|couldn't even finish the {t}|can't stand it|can't stand this {t}|"
        "i can't even|no thanks|no thank you|thumbs down|two thumbs down|hard pass|big nope|the {t} was a joke|thanks, i hate it|"
        "hardly worth it|far from great|far from ideal|anything but good|anything but easy|not exactly a masterpiece|not my favourite {t}"
    ),
}  # fmt: skip
_MEASURES = _split(
    "the {t} is {n} hours long|the {t} was {n} minutes long|the {t} lasted {n} hours|the {t} lasts {n} minutes|the book has {m} pages|"
    "the flight takes {n} hours|the trip took {n} hours|it takes {n} minutes on foot|the phone weighs {m} grams|the box weighs {n} kilos|"
    "the battery lasts {n} hours|the battery has {n} cells|the warranty is {n} years|the laptop comes with {n} gb of memory|it arrived on {d}|"
    "the parcel arrived on {d}|the {t} came out on {d}|the {t} starts on {d}|we watched the {t} on {d}|i ordered it on {d}|"
    "the {t} costs {n} dollars|the ticket was {n} euros|the shop opens at {n}|the room is on the {n}th floor|the {t} has {n} parts|"
    "there are {n} seats left|i am number {n} in the list|the {t} has {m} reviews|we were {n} people|she is {n} years old|"
    "the recipe takes {n} eggs|the cable is {n} metres long|the course has {n} lessons|my cousin is {n}|it was {n} degrees on {d}"
)
_DAYS = _split("Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday|the 3rd|the 14th|May 2nd")


def _score(dice: random.Random) -> tuple[str, str]:
    """A score and its label; scores between two labels (7 of 10) are left out."""
    label = dice.choices((NEGATIVE, NEUTRAL, POSITIVE), (4, 2, 4))[0]
    of_ten = {NEGATIVE: (0, 1, 2, 3, 4), NEUTRAL: (5, 6), POSITIVE: (8, 9, 10)}[label]
    of_five = {NEGATIVE: (0, 1, 1, 2), NEUTRAL: (3,), POSITIVE: (4, 5, 5)}[label]
    kind = dice.random()
    if kind < 0.3:
        score = str(dice.choice(of_ten)) + dice.choice(["/10", "/10", "/10", " out of 10", " / 10"])
    elif kind < 0.55:
        score = str(dice.choice(of_five)) + dice.choice(["/5", "/5", " out of 5", "/5 stars", " out of 5 stars"])
    elif kind < 0.85:
        number = dice.choice(of_five)
        score = f"{dice.choice((number, _NUMBER_WORDS[number]))} star{'' if number == 1 else 's'}"
    elif kind < 0.93:
        number = max(1, dice.choice(of_five))
        score = dice.choice(("★" * number + "☆" * (5 - number), "⭐" * number, "★" * number))
    else:
        score = str(10 * dice.choice(of_ten)) + dice.choice(("/100", " out of 100"))
    return score, label


def verdict(dice: random.Random) -> tuple[str, str]:
    """One verdict and its label."""
    kind = dice.random()
    if kind < 0.45:
        score, label = _score(dice)
        text = dice.choice(_AROUND_SCORE[label]).replace("{s}", score)
    elif kind < 0.85:
        label = dice.choice((NEGATIVE, NEUTRAL, POSITIVE))
        text = dice.choice(_PHRASES[label])
        if dice.random() < 0.15:
            score, scored = _score(dice)
            text = f"{text}. {score}" if scored == label else text
    else:
        label, text = NEUTRAL, dice.choice(_MEASURES)
    text = text.replace("{t}", dice.choice(_THINGS)).replace("{d}", dice.choice(_DAYS))
    text = text.replace("{n}", str(dice.randint(2, 12))).replace("{m}", str(dice.randint(100, 900)))
    return _cased(dice, text, label), label


def _cased(dice: random.Random, text: str, label: str) -> str:
    """Capitals and closing marks as people use them."""
    if dice.random() < 0.6:
        text = re.sub(r"\bi\b", "I", text)
        text = text[0].upper() + text[1:]
    if text[-1].isalnum():
        text += dice.choice(
            ["", "", "", ".", ".", "..." if label == NEGATIVE else ".", "" if label == NEUTRAL else "!"]
        )
    return text


def verdicts(count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """``count`` verdicts and their labels, the same for the same seed: three tenths each positive and negative."""
    dice = random.Random(f"verdicts {seed}")
    for _ in range(count):
        yield verdict(dice)


if __name__ == "__main__":
    for text, label in verdicts(*map(int, sys.argv[1:])):
        print(f"{text}\t{label}")
