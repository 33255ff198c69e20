"""Made-up messages to companies: complaints that name an event and no feeling, sarcasm, thanks, questions, requests.

    python recipes/mini/service.py COUNT [SEED] > service.tsv

Most complaints state an event ("on hold for 40 minutes"), which neither emoticons nor reviews teach. The lists were written
without reading the airline tweets, on which mini is tested.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Iterator

NEGATIVE, NEUTRAL, POSITIVE = "negative", "neutral", "positive"


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split("|")]


#: Placeholders in braces are filled from these lists, again and again until none is left.
_SLOTS = {
    "n": _split("two|3|four|5|6|seven|8|ten|12|15|20"),
    "mins": _split("20 minutes|30 mins|40 minutes|45 min|an hour|over an hour|90 minutes|2 hours|2hrs|three hours|4 hours|half a day|all day"),
    "days": _split("two days|3 days|four days|a week|over a week|10 days|two weeks|three weeks|a month|6 weeks|two months"),
    "nth": _split("second|2nd|third|3rd|fourth|fifth"),
    "when": _split("today|yesterday|last night|this morning|tonight|on Monday|last week|on Saturday|this afternoon"),
    "soon": _split("tomorrow|next week|on Friday|in March|this weekend|tonight|on Tuesday|over Christmas|in two weeks"),
    "money": _split("$25|$50|$75|$120|$200|£30|£85|€40|$400|60 dollars|a fee"),
    "company": _split("@user|@user|@user|@user|@user|@user|@user|@user @user|hey @user|hi @user|dear @user|ok @user|so @user"),
    "city": _split("Boston|Leeds|Denver|Dallas|Phoenix|Miami|Toronto|Madrid|Oslo|Seattle|Atlanta|Newark|Glasgow|Austin|Berlin|Chicago|Vegas|LA"),
    "who": _split("the agent|the driver|your rep|the guy at the desk|the woman on the phone|customer service|the manager|the clerk|a supervisor|"
                  "your staff|the technician|the crew|support|someone at the counter|the person at the gate|the courier|the receptionist"),
    "someone": _split("anyone|someone|a human|a person|a real person|an actual human|a rep|an agent"),
    "thing": _split("my order|my flight|my package|my bag|my refund|my booking|my reservation|my account|our room|my train|the delivery|my parcel|"
                    "my connection|my luggage|my suitcase|my replacement|my card|the repair|my appointment|our tickets|my bill|my claim"),
    "goods": _split("order|package|suitcase|parcel|laptop|stroller|phone|sofa|replacement|luggage|bag|card|ticket|tv|washer"),
    "ride": _split("flight|train|bus|connection|ferry|plane|shuttle|trip"),
    "part": _split("website|app|phone line|online chat|check-in page|booking site|wifi|system|self-service kiosk|payment page|rewards page|help line"),
    "item": _split("points|miles|voucher|credit|upgrade|receipt|confirmation|boarding pass|refund|discount|password reset|seat"),
    "relation": _split("my wife|my dad|my kids|my mom|my husband|my 3 year old|our baby|my grandmother|my team|my son|my daughter|my boss"),
    "place": _split("at the gate|on the runway|at the airport|at the station|at home|in the lobby|in line|on hold|at baggage claim|on the tarmac|at the store|in the queue|on the platform|outside the branch"),
    "good": _split("great|excellent|amazing|awesome|wonderful|fantastic|outstanding|superb|top notch|brilliant|incredible|exceptional"),
    "bad": _split("terrible|awful|horrible|the worst|a joke|pathetic|unacceptable|ridiculous|a disgrace|shocking|appalling|poor|abysmal"),
    "help": _split("help|service|support|response|assistance|effort"),
    "job": _split("service|customer service|communication|planning|staffing|support|process|training|baggage handling|scheduling"),
}  # fmt: skip
#: What follows a message now and then, by its label.
_ENDS = {
    NEGATIVE: _split("#fail|#epicfail|#neveragain|smh|wtf|come on|get it together|do better|not ok|why?|what a mess|really?|seriously?|still waiting|"
                     "any explanation?|not cool|this is on you|so done|unreal|again"),
    POSITIVE: _split(":)|you rock|#grateful|#happycustomer|you made my day|customer for life|much appreciated|will be back|thank you!|keep it up|❤️|👏|🙌"),
    NEUTRAL: _split("thanks|please|pls|thx|any info?|can you check?|cheers"),
}  # fmt: skip
_ASKING = re.compile(r"(what|do|does|is|how|can|which|where|when|will|who|are|any) ")

_COMPLAINTS = _split(
    "been {place} for {mins}|{mins} {place} and counting|on hold for {mins}|on hold {mins} and then it hung up|i have been on hold for {mins}|"
    "still no {goods} after {days}|where is {thing}? it has been {days}|it has been {days} and {thing} is still not here|{thing} never showed up|"
    "{thing} was cancelled {when} and nobody told us|{thing} got canceled for the {nth} time|{thing} is delayed again|{ride} delayed {mins}|"
    "{ride} delayed for the {nth} time {when}|{nth} delay {when}|another delay|delayed {mins}, now missed my {ride}|missed my {ride} because of you|"
    "you lost my {goods}|you lost my {goods} and {who} does not know where it is|my {goods} arrived broken|my {goods} arrived {days} late|"
    "you sent the wrong {goods}|{who} hung up on me|{who} hung up on me {n} times|{who} told me to call back {soon}|{who} was rude to {relation}|"
    "{who} rolled their eyes at {relation}|{who} laughed when i asked for a refund|{who} lied to us|{who} could not care less|{who} had no idea what was going on|"
    "no one answers the phone|nobody answers your phone|nobody picks up|is there {someone} working there?|how do i reach {someone}?|can {someone} please answer the phone|"
    "can i speak to {someone}? {n} calls and nothing|{n} calls, {n} different answers|{n} emails and no reply|no reply for {days}|you never replied to my {n} emails|"
    "your {part} is down|your {part} does not work|your {part} keeps crashing|your {part} has been down for {mins}|{part} broken again|cannot log in, {part} says error|"
    "your {part} charged me twice|you charged me {money} for nothing|charged {money} and got nothing|{money} to change a {ride}? wow|you want {money} for that?|"
    "still waiting for my {item} since {days}|my {item} disappeared|you took my {item} away|you will not honor my {item}|{who} refused my {item}|"
    "stuck {place} for {mins}|stuck {place} with {relation} for {mins}|stranded in {city} with no hotel|stuck in {city} overnight because of you|"
    "{relation} has been {place} since {when}|{relation} had to sleep {place}|you left {relation} {place}|no food, no water, no information for {mins}|"
    "no update for {mins}|no one can tell us anything|they keep telling us {n} more minutes|first it was the weather, now no crew|now they say there is no {goods}|"
    "{who} says one thing, {who} says another|your {job} is {bad}|{bad} {job} {when}|{job} has been {bad}|how is this acceptable?|is this how you treat customers?|"
    "why do i even pay for this|why do you need {mins} for this?|why is it so hard to get {someone} on the phone?|why does {thing} take {days}?|"
    "i want my money back|i want a refund|give me my money back|i would like to be compensated for {mins} of waiting|never flying with you again|"
    "last time i use you|never again|this is the {nth} time this happens|switching to someone else {soon}|done with you after {days} of this|i will take my business elsewhere|"
    "you have lost a customer|cancelled my account {when}|the room smelled of smoke|our room was not ready at 6 pm|the seat was broken|the seats are tiny|"
    "no wifi for the whole {ride}|the {ride} was freezing and dirty|sat next to the toilet for {mins}|the food was cold|they gave our seats away|you split up {relation} and me|"
    "overbooked again|they bumped us from our {ride}|they closed the door in our face|we could see the {ride} leave without us|one person working the desk for {n} hundred people|"
    "one agent for the whole line|the line is {mins} long|{mins} in line to drop a bag|{mins} to get our bags|bags did not make it to {city}|bag is in {city}, i am not|"
    "you rebooked me {soon}, i needed to be there {when}|missed a funeral because of you|missed work because of your {ride}|i will miss my meeting in {city}|"
    "your reply is a copy and paste|that does not help|dm sent {days} ago, nothing|i did dm you, no answer|do you even read these?|you keep saying sorry and do nothing|"
    "sorry does not get my {goods} back|an apology is not enough|it says delivered but nothing is here|you delivered it to the wrong house|left in the rain by {who}|"
    "power has been out for {mins}|internet down for {mins}|no signal since {when}|my bill went up by {money} without notice|fees on top of fees|"
    "a {money} voucher for {mins} of waiting? no thanks|refused to help|would not let me board|would not even look at it|took {mins} to say no|"
    "i was told it would take {mins}, that was {days} ago|is it policy to lie to customers?|this is not what i paid for|paid {money} extra and did not get it"
)  # fmt: skip
_SARCASM = _split(
    "thanks for nothing|thanks for losing my {goods}|thanks for the {mins} wait|thanks a lot for ruining our trip|thanks for canceling my {ride}|"
    "great job losing my {goods}|great way to treat customers|nice way to start a vacation|way to go, {ride} delayed again|good job leaving us {place}|"
    "love sitting {place} for {mins}|love paying {money} for no service|glad i paid extra to sit {place}|so much for on time|so much for priority service|"
    "wow, {mins} on hold, impressive|well done, {nth} cancellation in a row|oh good, another delay|awesome, {thing} is lost again|fantastic, no {goods} again|"
    "great, now i miss my {ride}|another day another delay|can't wait to spend {mins} more {place}|your call is important to us, for {mins}|"
    "thanks for making {relation} cry|perfect timing to close the desk|what a surprise, delayed again|shocker, {part} is down|hope you enjoy my {money}|"
    "congrats on the worst {job} ever|yes please charge me {money} again|five stars for leaving {relation} {place}|real classy|nice {job}, not"
)  # fmt: skip
_PRAISE = _split(
    "thank you|thanks|thanks so much|thank you so much for the {help}|thanks for the quick {help}|thanks for the fast reply|thanks for getting back to me|"
    "thanks for getting us to {city} safely|thanks for finding my {goods}|got my {goods} back, thank you|found my {goods}, thanks to {who}|{thing} arrived early|"
    "{thing} is here already, thanks|shoutout to {who} in {city}|big thanks to {who} for helping {relation}|{who} was so kind to {relation}|{who} went above and beyond {when}|"
    "{who} made my day|{who} in {city} was {good}|{who} fixed it in five minutes|{who} stayed late to help {relation}|please give {who} a raise|"
    "{good} {help} {when}|{good} {ride} to {city}|{good} {job} as always|{good} crew on my {ride} {when}|smooth {ride} to {city}|easy check-in, friendly staff|"
    "on time and friendly|arrived {mins} early|best {ride} i have had|best {job} i have had in years|i love flying with you|love the new {part}|the new {part} is {good}|"
    "your {part} works so well|you guys are {good}|you guys rock|you are the best|always a pleasure|always happy with you|never disappoints|will use you again|"
    "will definitely book again|so impressed with {who}|so glad we chose you|really appreciate the {help}|appreciate it|i appreciate you|problem solved, thanks|"
    "it worked, thank you|all sorted now, thanks|you saved my {ride}|you saved our trip|upgraded {when}, so happy|thanks for the {item}|got my {item}, thank you|"
    "refund came through in one day|that was fast, thanks|kudos to {who}|hats off to {who}|much better than the others|loved the {help}|got the last seat home, yes|"
    "great to hear, thanks|awesome, thank you|perfect, thanks|sweet, thanks|wow that was quick|good to know, thank you|excited for our {ride} to {city} {soon}|"
    "can't wait to fly with you {soon}|finally home, thanks to {who}|made my connection thanks to {who}|even with the delay {who} kept us smiling|you turned a bad day around"
)  # fmt: skip
_QUESTIONS = _split(
    "what time does your office in {city} open {soon}|do you fly from {city} to {city}|do you have a {ride} to {city} {soon}|is the {ride} to {city} on time|"
    "what is the status of {ride} {n}{n}{n}|how do i add my number to a booking|how do i add {relation} to my booking|can i change the name on a booking|"
    "can i bring a {goods} on board|can {relation} use my {item}|how many {item} do i need for {city}|do {item} expire|what is the baggage limit|"
    "what is the weight limit for a {goods}|which terminal do you use in {city}|where do i find my confirmation number|can you follow me so i can dm|"
    "can you dm me|i sent you a dm|just sent a dm|dm sent|sent you my number by dm|please follow back|following you now|my number is {n}{n}{n}{n}{n}|"
    "do you price match|do you ship to {city}|is there a code for students|does the offer end {soon}|when will tickets go on sale|when do you open the route to {city}|"
    "will you fly to {city} next year|is there wifi on the {ride}|do you serve food on the {ride}|is the lounge in {city} open {soon}|can i check in online|"
    "is there a number i can call|who do i contact about {item}|where can i send a form|need to change my {ride} to {soon}|need to move my booking to {soon}|"
    "i would like to change my {ride}|looking to book {n} seats to {city} {soon}|booking a {ride} to {city} for {relation}|traveling to {city} {soon} with {relation}|"
    "on my way to {city}|in {city} until Sunday|heading to {city} {soon}|flying to {city} {soon}|{city} to {city} {when}|boarding now in {city}|we land in {city} {soon}|"
    "it is for {relation}|it was for {n} people|it was under my name|yes, {n} of us|yes|no|yes i did|no, from {city}|the one to {city}|{ride} {n}{n}{n} to {city}|"
    "which form do i need for a {goods}|what does basic mean on my ticket|is this still valid|are you hiring in {city}|is {city} affected by the weather|"
    "any plans for a {city} route|new ad from @user http|@user and @user announce a partnership http|@user to add flights to {city} http|@user stock opens at {n}{n} http|"
    "@user moves to terminal {n} {soon}|article about @user in the paper http|do i need to print my {item}|how early should i be there"
)  # fmt: skip
_MAKERS = (
    (0.45, NEGATIVE, _COMPLAINTS),
    (0.1, NEGATIVE, _SARCASM),
    (0.23, POSITIVE, _PRAISE),
    (0.22, NEUTRAL, _QUESTIONS),
)
_SLOT = re.compile(r"\{(\w+)\}")


def _filled(dice: random.Random, template: str) -> str:
    return _SLOT.sub(lambda found: dice.choice(_SLOTS[found[1]]), template)


def message(dice: random.Random) -> tuple[str, str]:
    """One message and its label."""
    _, label, templates = dice.choices(_MAKERS, [maker[0] for maker in _MAKERS])[0]
    text = _filled(dice, dice.choice(templates))
    if label == NEGATIVE and dice.random() < 0.3:
        text += dice.choice([". ", ", ", " and ", "! ", "... "]) + _filled(dice, dice.choice(_COMPLAINTS))
    if label == POSITIVE and dice.random() < 0.25:
        text += dice.choice([". ", ", ", "! "]) + _filled(dice, dice.choice(_PRAISE))
    text += _ending(dice, label, text)
    place = dice.random()
    if place < 0.7:
        text = f"{dice.choice(_SLOTS['company'])} {text}"
    elif place < 0.8:
        text = f"{text} @user"
    return _cased(dice, text), label


def _ending(dice: random.Random, label: str, text: str) -> str:
    mark = "?" if label == NEUTRAL and _ASKING.match(text) and dice.random() < 0.8 else ""
    if dice.random() < 0.6:
        return mark
    end = dice.choice(_ENDS[label])
    between = (
        " "
        if mark or not end[0].isalpha()
        else dice.choice([". ", ", ", " ", "! " if label != NEUTRAL else ". ", "... "])
    )
    return f"{mark}{between}{end}"


def _cased(dice: random.Random, text: str) -> str:
    """Capitals, a full stop and a link as people use them."""
    kind = dice.random()
    if kind < 0.45:
        text = re.sub(r"(^|[.!?] |@user )([a-z])", lambda found: found[1] + found[2].upper(), text)
        text = re.sub(r"\bi\b", "I", text)
    elif kind < 0.48:
        text = text.replace("@user", "").strip().upper()
    if text[-1:].isalnum() and dice.random() < 0.3:
        text += dice.choice([".", ".", "!", "..."])
    return text + (" http" if dice.random() < 0.05 else "")


def messages(count: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """``count`` messages and their labels, the same for the same seed: 55 % negative, 22 % neutral, 23 % positive."""
    dice = random.Random(f"service {seed}")
    for _ in range(count):
        yield message(dice)


if __name__ == "__main__":
    for text, label in messages(*map(int, sys.argv[1:])):
        print(f"{text}\t{label}")
