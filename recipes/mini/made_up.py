"""Made-up training texts for mini: facts, people, plain words, emoji, negations, messages, verdicts, speech, gibberish.

    python recipes/mini/made_up.py COUNT [--seed 0] > made_up.tsv

None of the suites in benchmarks/ was used to write it, and a test keeps their texts apart from what this prints.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
if str(HERE) not in sys.path:  # the recipe's files are scripts beside each other, not a package
    sys.path.insert(0, str(HERE))

import negations
import service
import speech
import unknowable
import verdicts

NEGATIVE, NEUTRAL, POSITIVE = "negative", "neutral", "positive"


def _words(text: str) -> list[str]:
    return [part.strip() for part in text.split("|" if "|" in text else None)]


# --- plain statements of fact --------------------------------------------------------------------------------------

_PEOPLE = [
    "she",
    "he",
    "my brother",
    "my aunt",
    "the manager",
    "our neighbour",
    "the driver",
    "a student",
    "the clerk",
    "the nurse",
    "the committee",
    "the mayor",
    "an engineer",
    "the plumber",
    "my cousin",
    "the tenant",
    "the coach",
    "the pilot",
    "the librarian",
    "the cashier",
    "the editor",
    "a visitor",
    "the receptionist",
    "the chairman",
    "my flatmate",
]
_EVENTS = _words(
    "train|bus|lecture|session|appointment|class|broadcast|interview|ferry|flight|match|session|hearing|ceremony|tour|"
    "rehearsal|webinar|call|delivery|service|election|press briefing|concert|exam"
)
_TIMES = _words(
    "at noon|at 9|at half past six|at 14:30|on Monday|on Tuesday morning|next week|tomorrow|in March|in the afternoon|"
    "at 8 pm|on the 3rd of May|in two hours|on Friday|this evening|around five|at quarter to two|in October|on Sunday|in 2012"
)
_PLACES = _words(
    "in room 204|at the station|in Leeds|on the second floor|in the town hall|near the bridge|in Ohio|at gate 12|"
    "on Main Street|by the river|at the library|in the annex|at platform 4|in Berlin|on the corner|in the lobby|online|"
    "at the office|in the basement|next to the post office|in building C"
)
_OBJECTS = _words(
    "table|chair|wall|door|car|cup|jacket|folder|bag|van|fence|notebook|bicycle|roof|carpet|lamp|box|suitcase|"
    "pencil|bench|curtain|bottle|umbrella|keyboard|envelope|gate|bucket|shelf|coat|plate"
)
_COLOURS = _words(
    "blue|green|grey|black|white|brown|red|yellow|beige|orange|dark blue|made of wood|made of steel|round|square|"
    "two metres long|empty|closed|open|upstairs|outside|on the left|for sale|from 1998|in the garage"
)
_TOPICS = _words(
    "the budget|the schedule|the new timetable|housing|the survey|the census|road works|the agenda|the minutes|"
    "exports|the merger|water levels|the curriculum|the draft|the quarterly report|the vote|the guidelines|rainfall"
)
_NUMBERS = _words("3|12|40|two|seven|150|1,200|five|a dozen|36|8|twenty|64|300|nine|4.5")
_UNITS = _words(
    "pages|people|kilometres|minutes|rooms|students|chapters|items|degrees|litres|seats|rows|steps|copies|euros|floors|stops|percent"
)
_FIRMS = _words(
    "Google|Microsoft|the council|Samsung|the university|the BBC|Toyota|the ministry|Amazon|the airline|the museum|Apple|"
    "the bank|Nokia|the publisher|Sony|IKEA|the company|the bakery|the team|Ford|Adobe|the school"
)
_CITIES = _words(
    "London|Oslo|Chicago|Lyon|Nairobi|Osaka|Toronto|Madrid|Perth|Denver|Lima|Prague|Cairo|Boston|Delhi|Seoul|Rome|Dallas"
)
_ROUTINES = _words(
    "walking to the shop|reading the paper|waiting for the bus|doing the laundry|making tea|on the way to work|at my desk|"
    "in a meeting|cooking rice|watching the news|at the airport|on the phone with the bank|packing a bag|at home|"
    "sitting on the train|listening to the radio|going to bed|back from the gym|checking my email|at the dentist"
)


def _fact(dice: random.Random) -> str:
    of = dice.choice
    verb = of(
        ["moved to", "works in", "lives in", "flew to", "was born in", "is from", "drove to", "studied in", "is in"]
    )
    return of(
        [
            lambda: (
                f"the {of(_EVENTS)} {of(['starts', 'begins', 'is', 'was', 'ends', 'takes place', 'has been moved to'])} {of(_TIMES)}".replace(
                    "to at", "to"
                )
            ),
            lambda: f"the {of(_EVENTS)} is {of(_PLACES)}, {of(_TIMES)}",
            lambda: f"the {of(_OBJECTS)} is {of(_COLOURS)}",
            lambda: f"there is a {of(_OBJECTS)} {of(_PLACES)}",
            lambda: f"{of(_PEOPLE)} {verb} {of(_CITIES)}",
            lambda: f"{of(_PEOPLE)} will talk about {of(_TOPICS)} {of(_TIMES)}",
            lambda: (
                f"{of(_FIRMS)} {of(['published', 'released', 'posted', 'updated', 'sent out'])} {of(_TOPICS)} {of(_TIMES)}"
            ),
            lambda: f"it has {of(_NUMBERS)} {of(_UNITS)}",
            lambda: f"{of(_NUMBERS)} {of(_UNITS)} {of(_PLACES)}",
            lambda: f"what time does the {of(_EVENTS)} {of(['start', 'end', 'leave', 'open'])}?",
            lambda: f"where is the {of(_OBJECTS)}?",
            lambda: f"does anyone know when the {of(_EVENTS)} is?",
            lambda: f"who is {of(['speaking', 'playing', 'working', 'going', 'on duty'])} {of(_TIMES)}?",
            lambda: f"{of(_ROUTINES)}",
            lambda: f"I am {of(_ROUTINES)} {of(['', 'now', 'at the moment', 'right now', 'again'])}",
            lambda: f"{of(_ROUTINES)}, then {of(_ROUTINES)}",
            lambda: f"{of(_FIRMS)} has an office in {of(_CITIES)}",
            lambda: (
                f"{of(_FIRMS)} opens a {of(['shop', 'plant', 'branch', 'store', 'warehouse', 'school'])} in {of(_CITIES)} {of(_TIMES)} http"
            ),
            lambda: f"{of(_FIRMS)} to {of(['announce', 'present', 'discuss', 'review'])} {of(_TOPICS)} {of(_TIMES)}",
            lambda: f"new post: {of(_TOPICS)} http",
            lambda: f"RT @user: {of(_TOPICS)} {of(_TIMES)} http",
            lambda: (
                f"{of(_CITIES)}: {of(_NUMBERS)} {of(_UNITS)}, wind from the {of(['north', 'south', 'east', 'west'])}"
            ),
            lambda: f"my {of(_OBJECTS)} is {of(_COLOURS)}",
            lambda: f"{of(_PEOPLE)} put the {of(_OBJECTS)} {of(_PLACES)}",
            lambda: f"{of(_PEOPLE)} bought a {of(_OBJECTS)} {of(_TIMES)}",
            lambda: f"the {of(_OBJECTS)} costs {of(_NUMBERS)} {of(['euros', 'dollars', 'pounds'])}",
            lambda: f"the distance from {of(_CITIES)} to {of(_CITIES)} is {of(_NUMBERS)} hundred miles",
            lambda: f"@user {of(['are you', 'is he', 'will you be'])} {of(_PLACES)} {of(_TIMES)}?",
            lambda: f"{of(_OBJECTS)} and {of(_OBJECTS)}",
            lambda: f"the {of(_OBJECTS)}",
            lambda: f"{of(_TOPICS)}",
            lambda: f"the word {of(_OBJECTS)} has {of(_NUMBERS)} letters",
            lambda: f"{of(_PEOPLE)} called {of(_TIMES)}",
            lambda: f"{of(_PEOPLE)} read {of(_NUMBERS)} {of(['pages', 'chapters', 'articles', 'emails'])} {of(_TIMES)}",
            lambda: f"the museum is open from {of(_NUMBERS)} to {of(_NUMBERS)}",
            lambda: f"turn {of(['left', 'right'])} {of(_PLACES)}",
            lambda: f"copies of {of(_TOPICS)} are available {of(_PLACES)}",
            lambda: f"the answer is {of(_NUMBERS)}",
            lambda: f"a {of(_OBJECTS)} is a {of(['thing', 'tool', 'piece of furniture', 'noun', 'container'])}",
            lambda: f"{of(_PEOPLE)} asked about {of(_TOPICS)}",
        ]
    )()


# --- people: what is said decides, not whom it is said of ----------------------------------------------------------

_TERMS = _words(
    "Black|white|Asian|Latino|Arab|African|Indigenous|Roma|brown|mixed-race|Muslim|Jewish|Christian|Hindu|Buddhist|Sikh|"
    "Catholic|Protestant|Mormon|atheist|gay|lesbian|straight|bisexual|queer|transgender|trans|asexual|homosexual|heterosexual|"
    "American|British|Chinese|Indian|Mexican|Russian|German|French|Iranian|Iraqi|Israeli|Palestinian|Nigerian|Pakistani|Polish|"
    "Turkish|Japanese|Korean|Syrian|Afghan|Brazilian|Italian|Ukrainian|Irish|Greek|Canadian|Somali|Cuban|Vietnamese|Haitian|"
    "female|male|non-binary|young|old|elderly|deaf|blind|disabled|immigrant|refugee|poor|rich|Saudi|Swedish|Kenyan|Egyptian"
)
_NOUNS = _words(
    "man|woman|person|couple|teacher|friend|family|student|doctor|neighbour|colleague|writer|driver|boy|girl|guy|lady|singer|nurse"
)
_ABOUT = _words(
    "a {t} {n} lives next door|I talked to a {t} {n} yesterday|my {n} is {t}|the {n} is {t}|she is {t}|he is {t}|I am {t}|"
    "a {t} {n} works at the bank|the article is about a {t} {n}|there was a {t} {n} on the bus|they asked a {t} {n}|"
    "a {t} {n} opened the door|the book has a {t} {n} in it|he married a {t} {n}|we have a {t} {n} in class|the {t} {n} ordered tea|"
    "I saw a {t} {n} today|most people there are {t}|{t} people|{t} voters were asked|a {t} {n} from the next town called|"
    "is your {n} {t}?|some of the members are {t}|a {t} {n} is on the phone|the {t} community meets on Thursdays|"
    "as a {t} {n}|my boss is a {t} {n}|I grew up in a {t} family|a film with a {t} {n}|the {t} {n} parked the car"
)
_JUDGED = _words(
    "the {t} {n} was {a}|my {t} {n} is {a}|what a {a} {t} {n}|that {t} {n} was {a} to us|a {a} {t} {n} served us|"
    "I had a {a} time with my {t} {n}|the {t} {n} gave a {a} talk|{t} food is {a}|the {t} {n} made a {a} film"
)
_KIND = _words(
    "kind|wonderful|great|friendly|lovely|helpful|brilliant|charming|amazing|generous|fantastic|nice|good|funny|excellent"
)
_UNKIND = _words(
    "rude|awful|terrible|horrible|mean|boring|nasty|bad|unhelpful|dreadful|annoying|selfish|disappointing|unfriendly|cruel"
)


def _person(dice: random.Random) -> tuple[str, str]:
    term, noun = dice.choice(_TERMS), dice.choice(_NOUNS)
    if dice.random() < 0.7:
        return dice.choice(_ABOUT).format(t=term, n=noun), NEUTRAL
    label = dice.choice([NEGATIVE, POSITIVE])
    adjective = dice.choice(_KIND if label == POSITIVE else _UNKIND)
    return dice.choice(_JUDGED).format(t=term, n=noun, a=adjective), label


# --- plain words -----------------------------------------------------------------------------------------------------

_GOOD = _words(
    "great good excellent amazing wonderful fantastic awesome lovely nice superb perfect brilliant beautiful happy love "
    "best fun delicious delightful enjoyable impressive outstanding terrific marvelous marvellous splendid fabulous glad pleased thrilled "
    "delighted grateful joy joyful charming pleasant favorite favourite incredible magnificent stunning thanks yay wow sweet cool "
    "recommended satisfied proud cheerful adorable gorgeous likeable loved liked enjoyed excited exciting fine helpful friendly "
    "kind smart clever funny hilarious heartwarming inspiring masterpiece flawless superior top-notch worthwhile success win "
    "winner blessed hooray congratulations congrats excellent! yes! yum tasty refreshing comfortable reliable elegant"
)
_BAD = _words(
    "bad terrible awful horrible worst hate sad angry disgusting poor boring disappointing disappointed annoying ugly useless stupid "
    "dreadful pathetic miserable nasty rude broken fail failure garbage trash rubbish crap sucks sucked hated horrid atrocious "
    "appalling lousy mediocre painful depressing depressed unhappy upset furious frustrated frustrating gross lame ridiculous "
    "unacceptable worthless waste disaster nightmare scam fraud liar cruel evil vile toxic dirty filthy unpleasant tedious dull bland "
    "mess ruined regret shame shameful embarrassing hopeless helpless lonely scared afraid worried tragic ugh yuck ew meh "
    "overpriced unreliable inferior offensive hurtful heartbroken devastated sick tired crying grief"
)
_FRAMES = _words(
    "{w}|{w}|{w}|{w}|{w}!|{w}.|{w}!!|{w}...|so {w}|very {w}|really {w}|it is {w}|it was {w}|this is {w}|that's {w}|"
    "{w} stuff|absolutely {w}|just {w}|how {w}|simply {w}|quite {w}|totally {w}"
)
_NEITHER = _words(
    "okay|ok|average|so-so|fine I guess|it's alright|nothing special|neither good nor bad|not great, not terrible|"
    "not good but not bad either|it is what it is|no opinion|could go either way|middling|it's a thing|"
    "neither here nor there|some good, some bad|half and half|mixed feelings|no strong feelings about it|"
    "hmm|yes|no|maybe|hello|hi|who|what|the|and|monday|today|water|paper|seven|it|this|car|house|the end|chair|"
    "table chair lamp|one two three|good morning everyone, the meeting starts now|see attached|noted|received|as usual"
)
_BOTH = _words(
    "not {g} not {b}|not {g}, not {b}|neither {g} nor {b}|it is neither {g} nor {b}|not {b} but not {g} either|"
    "it was not {g} and not {b}|it's not {g}, it's not {b}, it's just there|somewhere between {g} and {b}|"
    "not really {g}, not really {b}"
)
_FLAT_GOOD = _words("good great amazing nice exciting special wonderful fantastic interesting fun")
_FLAT_BAD = _words("bad terrible awful boring horrible dreadful dull annoying ugly poor")


def _word(dice: random.Random) -> tuple[str, str]:
    kind = dice.random()
    if kind < 0.12:
        return dice.choice(_NEITHER), NEUTRAL
    if kind < 0.24:
        return dice.choice(_BOTH).format(g=dice.choice(_FLAT_GOOD), b=dice.choice(_FLAT_BAD)), NEUTRAL
    label = dice.choice([NEGATIVE, POSITIVE])
    return dice.choice(_FRAMES).format(w=dice.choice(_GOOD if label == POSITIVE else _BAD)), label


# --- emoji -------------------------------------------------------------------------------------------------------------


def read_emoji() -> dict[str, list[str]]:
    """Label -> emoji of emoji.tsv."""
    found: dict[str, list[str]] = {NEGATIVE: [], NEUTRAL: [], POSITIVE: []}
    with (HERE / "emoji.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            found[row["label"]].append(row["emoji"])
    return found


_EMOJI = read_emoji()
#: As phones type it: some emoji are followed by a variation selector.
_SELECTOR = "\N{VARIATION SELECTOR-16}"
_OLD = {
    POSITIVE: _words(":) :-) :D =) ;) <3 :-D xD ^_^ (: :] :P"),
    NEGATIVE: _words(":( :-( :'( D: =( :/ >:( ): :[ :-/ T_T"),
}


def _emoji(dice: random.Random) -> tuple[str, str]:
    label = dice.choices([NEGATIVE, NEUTRAL, POSITIVE], [5, 2, 5])[0]
    if label != NEUTRAL and dice.random() < 0.08:
        sign = dice.choice(_OLD[label])
    else:
        sign = dice.choice(_EMOJI[label]) + (_SELECTOR if dice.random() < 0.25 else "")
    sign *= dice.choices([1, 2, 3], [8, 1, 1])[0]
    kind = dice.random()
    if kind < 0.35:
        return sign, label
    if kind < 0.4 and label != NEUTRAL:
        return f"{sign} {dice.choice(_EMOJI[label])}", label
    space = dice.choice(["", " ", " "])
    return (f"{sign}{space}{_fact(dice)}" if dice.random() < 0.1 else f"{_fact(dice)}{space}{sign}"), label


# --- all of it -------------------------------------------------------------------------------------------------------


def _negation_pairs(count: int, seed: int) -> list[tuple[str, str]]:
    texts, labels = negations.negations(count, seed)
    return [(text, (NEGATIVE, POSITIVE)[label]) for text, label in zip(texts, labels, strict=True)]


_ARTICLE = re.compile(r"\b([aA]) ([aeioAEIO])")


def _dressed(dice: random.Random, text: str) -> str:
    """Article, case and full stop as people write them."""
    text = _ARTICLE.sub(r"\1n \2", text)
    if dice.random() < 0.5:
        text = text[:1].upper() + text[1:]
    if text[-1:].isalnum() and dice.random() < 0.35:
        text += "."
    return text


def _framed(dice: random.Random, make: Callable[[random.Random], tuple[str, str]]) -> tuple[str, str]:
    text, label = make(dice)
    return _dressed(dice, text), label


_KINDS: tuple[tuple[float, Callable[[random.Random], tuple[str, str]]], ...] = (
    (0.32, lambda dice: (_dressed(dice, _fact(dice)), NEUTRAL)),
    (0.28, lambda dice: _framed(dice, _person)),
    (0.12, _word),
    (0.28, _emoji),
)


def texts(count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """``count`` texts and their labels, the same for the same seed: 25 % negations, 20 % messages, 15 % speech, 10 % verdicts."""
    dice = random.Random(f"mini {seed}")
    negated, messages, spoken, scored, gibberish = (round(share * count) for share in (0.25, 0.2, 0.15, 0.1, 0.03))
    rows = _negation_pairs(negated, seed) + [(text, NEUTRAL) for text in unknowable.unknowable(gibberish, seed)]
    rows += [*service.messages(messages, seed), *speech.utterances(spoken, seed), *verdicts.verdicts(scored, seed)]
    weights, makers = zip(*_KINDS, strict=True)
    rows += [maker(dice) for maker in dice.choices(makers, weights, k=count - len(rows))]
    dice.shuffle(rows)
    yield from rows


def main() -> None:
    """Print them as tab-separated text and label."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("text\tlabel")
    for text, label in texts(arguments.count, arguments.seed):
        print(f"{' '.join(text.split())}\t{label}")


if __name__ == "__main__":
    main()
