"""Made-up everyday speech: slang, typing errors, rhetorical questions, changes over time, good and bad news, facts.

    python recipes/mini/speech.py COUNT [SEED] > speech.tsv

Slang and typing errors are rare in labelled sets; news is good or bad by who wins and what falls; and a fact keeps its label
although it names a virus, a war or an acid.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator

NEGATIVE, NEUTRAL, POSITIVE = "negative", "neutral", "positive"


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split("|")]


#: Placeholders in braces are filled from these lists.
_SLOTS = {
    "t": _split("the new album|this song|that movie|the show|this game|the update|the app|my new phone|the pizza|that burger|the coffee here|the party|"
                "the concert|the hotel|this book|the website|my haircut|the weather|the traffic|the food here|the ending|the last episode|the beat|"
                "the playlist|the meeting|the lecture|this class|the gym|the bus|the new design|the trailer|the wifi|the service|the camera"),
    "good": _split("good|great|amazing|awesome|fantastic|brilliant|excellent|wonderful|perfect|beautiful|delicious|lovely|incredible|gorgeous|hilarious"),
    "bad": _split("bad|terrible|awful|horrible|boring|annoying|disgusting|useless|dreadful|ugly|pathetic|disappointing|ridiculous|miserable|horrendous"),
    "rival": _split("our rivals|the other team|the champions|the neighbours' team|the visitors|their best player's team|last year's winners|the favourites"),
    "us": _split("we|our team|my team|our side|the home team|my school|our club|my daughter's team|my brother's team|the boys|the girls"),
    "long": _split("today|this week|this year|again|at last|in the end|last night|this morning|since Monday|for once|this month"),
    "cost": _split("my rent|the price of milk|the bill|the heating bill|my insurance|the fee|the ticket price|my mortgage|the cost of living"),
    "ill": _split("crime|unemployment|pollution|the infection rate|the error count|the dropout rate|the waiting list|child poverty|hunger|the death toll|"
                  "the number of accidents|my blood pressure|the noise level|the crash rate"),
    "well": _split("literacy|attendance|our rating|the survival rate|my salary|my pension|our savings|the harvest|the team's morale|donations|"
                   "the number of volunteers|our income|my grades|the funding|the number of visitors"),
    "pain": _split("the pain|my headache|the fever|the tumour|the leak|the mould|the rash|my cough|the fire|the flood|the virus|the backache"),
    "d": _split("on Monday|on Tuesday|in March|in 1987|in the 19th century|twice a day|at night|in spring|every four years|at 9 am|in 2014|by hand"),
    "n": _split("two|three|four|five|six|seven|eight|ten|12|15|20|40|100"),
}  # fmt: skip

_SLANG = {
    POSITIVE: _split(
        "{t} slaps|{t} slaps so hard|{t} is lit|this is lit|straight fire|pure fire|{t} is fire|{t} is straight fire 🔥|this is so fire|"
        "{t} is bussin|no cap {t} is the best|goated|{t} is goated|the goat|goat status|dope|so dope|{t} is dope|sick beat|{t} is sick, love it|"
        "legit the best|on point|{t} was on point|on fleek|they killed it|killed it tonight|absolutely slayed|she slayed|she ate that|"
        "ate and left no crumbs|big w|huge w|what a w|a big w for us|this rocks|{t} rocks|rad|wicked good|banging|what a banger|certified banger|"
        "{t} is a banger|such a bop|hella good|lowkey love {t}|lowkey obsessed with {t}|highkey love {t}|immaculate vibes|the vibes are immaculate|"
        "good vibes only|here for it|i'm so here for this|living my best life|we stan|so hyped|so hyped for {t}|stoked|so stoked for {t}|"
        "pumped for {t}|hits different|{t} hits different|top tier|s tier|god tier|elite|clutch|lets gooo|let's gooooo|crushing it|the bomb|"
        "{t} is the bomb|off the chain|popping|buzzing for {t}|well chuffed|chuffed to bits|proper good|an absolute belter|ace|pretty rad|"
        "10 outta 10|mad respect|respect|props to them|kudos|bless|so blessed|feeling blessed|winning at life|best thing since sliced bread|"
        "{t} got me in my feels in a good way|can't stop bumping {t}|{t} goes hard|goes so hard|{t} goes hard af|good af|so good fr fr|"
        "fr the best|im obsessed|obsessed with {t}|{t} never misses|they never miss|a whole vibe|{t} is a whole vibe|it's giving perfection"
    ),
    NEUTRAL: _split(
        "wyd|wya|brb|omw|on my way|ttyl|lmk|fyi|hmu later|idk|idk tbh|tbh idk|sup|whats up|imma head out|gonna grab food brb|who's up|"
        "wanna come over later|u there|r u home|call me when ur free|txt me the address|gtg|see u at 8|be there in 5|k|kk|ok cool|same|what time tho|"
        "which one tho|where u at|anyone up|whos coming|ask him idk|dm me the link|link in bio|new pfp|changing my @|afk"
    ),
    NEGATIVE: _split(
        "mid|so mid|kinda mid|{t} is mid|{t} was mid at best|trash|pure trash|{t} is trash|hot garbage|{t} is hot garbage|a dumpster fire|"
        "{t} is a dumpster fire|a train wreck|total train wreck|huge l|big l|took an l today|what an l|l take|cringe|so cringe|{t} is cringe af|"
        "sucks|this sucks|{t} sucks|{t} sucks big time|{t} sucked|{t} blows|{t} stinks|this ain't it|{t} ain't it|not it|this ain't it chief|"
        "flop|{t} flopped|what a flop|wack|{t} is wack|janky|so janky|lame|so lame|weak sauce|bs|total bs|what a load of bs|crappy|{t} is crap|"
        "pissed off|so pissed right now|so done|so done with {t}|done with this|over it|i'm so over {t}|fml|ffs|ffs not again|smh|big yikes|yikes|"
        "bruh not again|salty about {t}|they ghosted me|got ghosted again|rip off|total rip off|what a rip-off|scam|such a scam|{t} is a scam|"
        "gutted|absolutely gutted|{t} was pants|naff|rank|minging|bottom tier|f tier|dog water|{t} is dog water|{t} is ass|killing my vibe|buzzkill|"
        "bummer|what a bummer|such a downer|hard no|nah, {t} is not for me|dead inside|kill me now|shoot me now|can't even with {t}|the worst af|"
        "bad af|{t} is bad fr|fell off|{t} fell off hard|they fell off|washed|he is washed|giving me the ick|{t} gives me the ick|sketchy|"
        "{t} is buggy af|laggy mess|{t} is a hot mess|rage quit|about to rage quit|i'm fuming|fuming|livid|what a clown show|clown behaviour"
    ),
}  # fmt: skip
_QUESTIONS = {
    POSITIVE: _split(
        "how good is {t}?!|how {good} was {t}?|how {good} is that?|who else loves {t}?|isn't {t} just {good}?|isn't that {good}?|aren't they {good}?|"
        "could {t} be any better?|could this day get any better?|is there anything better than {t}?|why is {t} so {good}?|"
        "what's not to love about {t}?|what's not to like?|who wouldn't want {t}?|who doesn't love {t}?|how could you not love {t}?|"
        "how can anyone not like {t}?|why did i not try {t} sooner?|why did nobody tell me how {good} {t} is?|can {t} please never end?|"
        "did you see how {good} {t} was?|have you ever had anything so {good}?|wasn't {t} {good}?|what more could you want?|can you believe how {good} {t} is?|"
        "how lucky am i?|how cool is that?|how sweet is that?"
    ),
    NEUTRAL: _split(
        "is {t} open today?|is {t} any good?|has anyone tried {t}?|how good is {t} compared to the old one?|which one is better?|should i buy it?|"
        "what is {t} like?|do people like {t}?|is {t} worth it?|was {t} good or bad?|how bad is the traffic today?|how was {t}?|did you like {t}?|"
        "who has seen {t}?|where can i get it?|does anyone know if {t} is good?|what did you think of {t}?|would you recommend {t}?|"
        "is it any better than the last one?|when does it start?|who made {t}?|what's the best one?|what's the worst that can happen?"
    ),
    NEGATIVE: _split(
        "how bad is {t}?!|how {bad} was {t}?|how {bad} is that?|is it just me or is {t} {bad}?|isn't {t} just {bad}?|isn't that {bad}?|aren't they {bad}?|"
        "could {t} be any worse?|could {t} be any more {bad}?|could this day get any worse?|is there anything worse than {t}?|why is {t} so {bad}?|"
        "why is {t} always so {bad}?|who thought {t} was a good idea?|who asked for {t}?|what's the point of {t}?|what is the point?|"
        "when will {t} finally work?|why doesn't {t} ever work?|why can't {t} be {good} for once?|why can't they get it right?|how is {t} still so {bad}?|"
        "what went wrong with {t}?|am i the only one who hates {t}?|how can anyone like {t}?|how do people enjoy {t}?|who likes {t} anyway?|"
        "why would anyone pay for {t}?|did i really pay for this?|is this a joke?|are you kidding me?|really? again?|what is wrong with {t}?|"
        "how hard can it be?|how hard is it to get {t} right?|is that the best you can do?|you call that {good}?|why even bother?|who designed this?|"
        "was {t} supposed to be {good}?|what did i do to deserve {t}?|how did {t} get so {bad}?|wasn't {t} {bad}?"
    ),
}  # fmt: skip
_TIME = {
    POSITIVE: _split(
        "i used to hate {t}, now i love it|used to find {t} {bad}, not any more|{t} was {bad} at first, now it is {good}|{t} gets better every time|"
        "{t} is getting better and better|{bad} last year, {good} this year|i hated {t} until i tried it again, it's {good}|better than it used to be|"
        "{t} has improved so much|once {bad}, now {good}|it will be {good}|this is going to be {good}|i expected something {bad}, but {t} was {good}|"
        "it started {bad} and ended {good}|never liked {t} before, but i do now|after years of {bad} ones, finally something {good}"
    ),
    NEGATIVE: _split(
        "i used to love {t}, now i hate it|{t} used to be {good}|{t} was {good} once|used to be {good}, not any more|{t} was {good} at first, now it is {bad}|"
        "{t} gets worse every time|{t} is getting worse and worse|{good} last year, {bad} this year|i loved {t} until the update|i loved {t} until yesterday|"
        "worse than it used to be|{t} has gone downhill|{t} went downhill|once {good}, now {bad}|it will be {bad}|this is going to be {bad}|"
        "i expected something {good}, but {t} was {bad}|it started {good} and ended {bad}|always liked {t} before, but not now|"
        "what happened to {t}? it used to be {good}|i miss when {t} was {good}|{t} is not what it used to be"
    ),
}  # fmt: skip
_NEWS = {
    POSITIVE: _split(
        "{rival} lost {long}|{us} beat {rival} {long}|{us} won {long}|{us} won the final|{rival} are out, we are through|{ill} is down {long}|{ill} fell {long}|"
        "{ill} has halved|less and less {ill}|{cost} went down|{cost} is lower than expected|{pain} is gone|{pain} is gone {long}|{pain} is getting smaller|"
        "no more {pain}|{well} is up {long}|{well} went up|{well} has doubled|the thieves were caught|the thief was caught {long}|nobody was hurt|"
        "no one was injured|everyone survived|everyone got out safely|they found the missing girl alive|the dog was found safe|the war is over|"
        "the ban was lifted|the surgery went well|the test came back negative, i'm healthy|i got the job|i got promoted|i passed|passed the exam {long}|"
        "paid off my debt {long}|i quit smoking a year ago and feel great|they said yes|she said yes|we got the house|the charges were dropped|"
        "my enemies are crying and i love it|the library stays open|they saved the park|the baby is healthy"
    ),
    NEGATIVE: _split(
        "{rival} won {long}|{rival} beat us {long}|{us} lost {long}|{us} lost the final|we are out, {rival} are through|{ill} is up {long}|{ill} rose {long}|"
        "{ill} has doubled|more and more {ill}|{cost} went up|{cost} is higher than expected|{pain} is back|{pain} is back {long}|{pain} is getting bigger|"
        "{pain} came back|{well} is down {long}|{well} went down|{well} has halved|the thieves got away|the thief was never caught|many were hurt|"
        "{n} people were injured|{n} people died|nobody survived|no one got out|they never found the missing girl|the dog is still missing|the war goes on|"
        "the ban stays|the surgery went wrong|the test came back positive, i'm sick|i didn't get the job|i got fired|i failed|failed the exam {long}|"
        "deeper in debt {long}|i started smoking again|they said no|she said no|we lost the house|the guilty ones walked free|"
        "my friends are crying|the library is closing|they cut down the park|they lost the baby|the last bakery in town closed"
    ),
}  # fmt: skip
_FACTS = _split(
    "acids react with bases|the acid has a ph of {n}|the virus has {n} proteins|viruses are smaller than bacteria|the war ended {d}|the battle took place {d}|"
    "the earthquake was measured at {n} stations|the volcano last erupted {d}|cancer cells divide faster than others|the heart has four chambers|"
    "the heart pumps blood through the body|sharks have {n} rows of teeth|wolves live in packs|bats sleep during the day|the spider has eight legs|"
    "light is faster than sound|iron rusts in damp air|ice melts at zero degrees|the moon goes round the earth|dark matter emits no light|"
    "the black hole is {n} light years away|the poison comes from a frog|the snake sheds its skin {d}|the crime took place {d}|the trial starts {d}|"
    "the prison was built {d}|the sale starts {d}|the shop gives 20 % off shoes|shoes are in the basement|the shirt comes in {n} sizes|"
    "the jacket is available in black and blue|the store takes cards and cash|returns are possible within {n} days|the checkout is on the left|"
    "the discount ends {d}|the shop closes for stocktaking {d}|i bought {n} apples|she paid by card|the receipt is in the bag|the free sample is in the box|"
    "gift cards are sold at the till|the sweets are on the top shelf|the beauty department is upstairs|the error log is in the folder|"
    "a failed login is recorded|the kill command ends a process|the child process inherits the file|the bug tracker has {n} open tickets|"
    "the server is in the basement|the patch was released {d}|the crash test is {d}|the dead line on the map is an old railway|the function returns an error code|"
    "press the red button to stop|boil the eggs for {n} minutes|beat the eggs with sugar|whip the cream until stiff|crush the garlic|burn the candle outdoors|"
    "add a pinch of bitter salt|the sour cream goes on last|the hot plate is on the left|the film tells of a murder|the novel is a tragedy|"
    "the love song was written {d}|the comedy was filmed {d}|the museum of pain is a place in the story|the villain is played by two actors|"
    "the award is given {d}|the prize was first awarded {d}|the happy hour is from five to seven|the patient is {n} years old|the pill is taken {d}|"
    "the injection is given {d}|the nurse works {d}|the allergy test takes {n} minutes|the blood sample is sent to the laboratory"
)
_SHORTHAND = {
    "great": "gr8", "love": "luv", "you": "u", "are": "r", "so": "sooo", "really": "rly", "because": "cuz", "please": "pls",
    "thanks": "thx", "amazing": "amazin", "awesome": "awsome", "terrible": "terible", "beautiful": "beautifull", "delicious": "delicous",
    "horrible": "horible", "disappointing": "dissapointing", "excellent": "excelent", "boring": "borring", "fantastic": "fantastik",
    "brilliant": "briliant", "awful": "awfull", "annoying": "anoying", "ridiculous": "rediculous", "perfect": "perfekt",
    "wonderful": "wonderfull", "miserable": "miserible", "disgusting": "digusting", "hilarious": "hillarious", "useless": "usless",
}  # fmt: skip
_OPINIONS = {
    POSITIVE: _split("{t} is {good}|{t} was so {good}|i love {t}, so {good}|what a {good} day|such a {good} evening|really {good} stuff|that was {good}|"
                     "i am so happy with {t}|this made me happy|best day ever|thanks, that was {good}|you are {good}|so {good}, i love it"),
    NEGATIVE: _split("{t} is {bad}|{t} was so {bad}|i hate {t}, so {bad}|what a {bad} day|such a {bad} evening|really {bad} stuff|that was {bad}|"
                     "i am so angry about {t}|this made me sad|worst day ever|no thanks, that was {bad}|you are {bad}|so {bad}, i hate it"),
}  # fmt: skip
_SLOT = re.compile(r"\{(\w+)\}")
_NEIGHBOURS = {
    letter: row[max(0, at - 1) : at] + row[at + 1 : at + 2]
    for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm")
    for at, letter in enumerate(row)
}


def _mistyped(dice: random.Random, text: str) -> str:
    """The longest word with one typing error, or another word in shorthand, or a vowel that is held down."""
    words = text.split(" ")
    known = [at for at, word in enumerate(words) if word in _SHORTHAND]
    kind = dice.random()
    if known and kind < 0.3:
        at = dice.choice(known)
        words[at] = _SHORTHAND[words[at]]
        return " ".join(words)
    at = max(range(len(words)), key=lambda place: len(words[place]))
    word = words[at]
    place = dice.randrange(1, max(2, len(word) - 1))
    left, letter, right = word[:place], word[place : place + 1], word[place + 1 :]
    if kind < 0.45:
        words[at] = left + right
    elif kind < 0.6:
        words[at] = left + right[:1] + letter + right[1:]
    elif kind < 0.75:
        words[at] = left + letter + letter + right
    elif kind < 0.85:
        words[at] = left + dice.choice(_NEIGHBOURS.get(letter) or letter or "e") + right
    else:
        vowels = list(re.finditer("[aeiou]", word)) or [re.match(".", word)]
        found = dice.choice(vowels)
        words[at] = word[: found.end()] + found[0] * dice.randint(2, 6) + word[found.end() :] if found else word
    return " ".join(words)


def _utterance(dice: random.Random) -> tuple[str, str]:
    kind = dice.random()
    if kind < 0.2:
        label = dice.choices((NEGATIVE, NEUTRAL, POSITIVE), (5, 2, 5))[0]
        return dice.choice(_SLANG[label]), label
    if kind < 0.45:
        label = dice.choices((NEGATIVE, NEUTRAL, POSITIVE), (4, 3, 3))[0]
        return dice.choice(_QUESTIONS[label]), label
    if kind < 0.58:
        label = dice.choice((NEGATIVE, POSITIVE))
        return dice.choice(_TIME[label]), label
    if kind < 0.74:
        label = dice.choice((NEGATIVE, POSITIVE))
        return dice.choice(_NEWS[label]), label
    if kind < 0.82:
        return dice.choice(_FACTS), NEUTRAL
    label = dice.choice((NEGATIVE, POSITIVE))
    return dice.choice(_OPINIONS[label]), label


def utterance(dice: random.Random) -> tuple[str, str]:
    """One utterance and its label."""
    text, label = _utterance(dice)
    plain = text in _OPINIONS[POSITIVE] or text in _OPINIONS[NEGATIVE]
    text = _SLOT.sub(lambda found: dice.choice(_SLOTS[found[1]]), text)
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    if dice.random() < (0.9 if plain else 0.05):
        text = _mistyped(dice, text)
    if dice.random() < 0.5:
        text = re.sub(r"\bi\b", "I", text)
        text = text[0].upper() + text[1:]
    if text[-1].isalnum():
        text += dice.choice(["", "", "", ".", ".", "!" if label != NEUTRAL else ""])
    return text, label


def utterances(count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """``count`` utterances and their labels, the same for the same seed."""
    dice = random.Random(f"speech {seed}")
    for _ in range(count):
        yield utterance(dice)


if __name__ == "__main__":
    for text, label in utterances(*map(int, sys.argv[1:])):
        print(f"{text}\t{label}")
