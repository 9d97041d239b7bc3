"""How personas can sound: tones, structures, habits and noise (markup as in `bank`)."""

from __future__ import annotations

from dataclasses import dataclass

from spring.data.sources.personas.catalogue import phrases


@dataclass(frozen=True)
class Tone:
    """The ways one tone of voice has for each part of a review."""

    opening: tuple[str, ...]
    story: tuple[str, ...]
    plus: tuple[str, ...]  # leads a good observation in
    minus: tuple[str, ...]  # leads a bad one in
    good: tuple[str, ...]  # verdict for 4 and 5 stars
    mixed: tuple[str, ...]
    bad: tuple[str, ...]
    advice: tuple[str, ...]  # after a good verdict
    warning: tuple[str, ...]  # after a bad one


TONES: dict[str, Tone] = {
    "dry": Tone(
        phrases(
            """A {T}. It is here because the last one died; I needed a {T} and the {B} was in stock;
            Another {T}, another review; Not much to say about a {T}, but here it is; The {B} {T}, then;
            I do not usually write about a {T}"""
        ),
        phrases(
            """Conditions: {use}; {use}. That is the basis of this review; For context, {use};
            It has been {span}. In that time {use}; Bought it, unpacked it, and {use};
            The test was simple: {use}"""
        ),
        phrases("""{c}; Noted: {c}; In its favour, {c}; To its credit, {c}"""),
        phrases("""{c}; Less good: {c}; Against it, {c}; One entry on the other side: {c}"""),
        phrases(
            """It does what a {T} should do; A {good} {T}. That is all; I have no objections;
            It works, which is rarer than it sounds; Money exchanged for a {good} {T}, as intended;
            I see no reason to send it back"""
        ),
        phrases(
            """It is a {T}, neither more nor less; Half of it works, and I use that half;
            Acceptable, on a good day; I have kept it, without joy; Three stars is what it is;
            It averages out"""
        ),
        phrases(
            """It is a {T} in name only; A {bad} {T}. It went back; I have owned better doorstops;
            I expected little and got less; The refund took four minutes, the highlight; Not fit for use"""
        ),
        phrases(
            """Buy it or do not; Fine by me; I would order it again, if asked; Recommended, within reason"""
        ),
        phrases("""Look elsewhere; Keep your receipt; I would not; There are other makers"""),
    ),
    "enthusiastic": Tone(
        phrases(
            """Deep breath, because I have feelings about this {T}; I could not wait to write this one;
            You have to hear about this {T}; I have been telling everybody about my new {B};
            Okay, {T} people, gather round; I was so excited when this {T} arrived"""
        ),
        phrases(
            """We went all in: {use}; Picture this: {use}; I put it straight to work, {use};
            {span} in and so much has happened, {use}; First thing that week, {use};
            What a week it was, {use}"""
        ),
        phrases("""And get this, {c}; I love how {c}; Best of all, {c}; You will not believe it, {c}"""),
        phrases(
            """Tiny sigh, {c}; It pains me to say it, {c}; The one thing I did not love: {c}; Alas, {c}"""
        ),
        phrases(
            """I am {int} in love with this {T}; What a {good} {T}, I am over the moon;
            This is hands down my favourite buy of the year; Absolutely {int} {good}, from first to last;
            Ten out of ten, it made my whole month; I grin every time I use it"""
        ),
        phrases(
            """I wanted to adore it and I nearly do; So close to being a {good} {T};
            Half of me cheers, half of me sighs; There is a {good} {T} in here somewhere;
            I am rooting for the next version; Lots to like and a bit to mourn"""
        ),
        phrases(
            """I am {int} heartbroken about this {T}; Such high hopes and such a {bad} {T};
            I wanted to love it so much and I cannot; What a let-down, {int} {bad};
            All my excitement gone in {days}; I nearly cried when it went back"""
        ),
        phrases(
            """Run, do not walk; Go and get one today; Treat yourself, you will thank me;
            I already ordered a second"""
        ),
        phrases(
            """Save your excitement for another; Please do better, {B}; Do not fall for it like me;
            Skip it, friends"""
        ),
    ),
    "sarcastic": Tone(
        phrases(
            """Because what my life lacked was one more {T};
            Behold, the {T} that changes everything, says the box; Yes, I am a grown adult reviewing a {T};
            The advert promised me happiness, so I ordered the {T}; Hold the front page: I bought a {T};
            Apparently the {B} was designed by experts"""
        ),
        phrases(
            """Living on the edge as ever, {use}; In a daring experiment, {use}; My glamorous life: {use};
            For {span} of pure adrenaline, {use}; Science demanded it, so {use}; Brace yourself: {use}"""
        ),
        phrases(
            """Shockingly, {c}; I hate to admit it, {c}; Somebody was awake at the factory, {c};
            Call the press: {c}"""
        ),
        phrases("""Naturally, {c}; As a special treat, {c}; Of course {c}; For no extra charge, {c}"""),
        phrases(
            """Annoyingly, this is a {int} {good} {T}; I came here to complain and have nothing;
            A product that works. What next, honest politicians;
            It is {good}, so my complaint letter was for nothing; My cynicism has taken a serious blow;
            Fine, it is {good}, are you happy now"""
        ),
        phrases(
            """A triumph of being just about all right; The glass is half full and slightly cracked;
            It aims for the middle and hits it; Three stars, one for each week I waited;
            Somewhere between a {T} and an apology; Greatness was clearly extra"""
        ),
        phrases(
            """A {int} {bad} {T}, gift it to an enemy; Bravo, {B}, it takes talent to get a {T} wrong;
            I have met more useful pebbles; Truly the {T} nobody deserves; It makes a lovely paperweight;
            The bin liked it more than I did"""
        ),
        phrases(
            """Buy it and ruin your bad mood; Go on, spoil yourself; You could do worse, I usually do;
            Take my word, or not"""
        ),
        phrases(
            """By all means, buy two; Your money, your tears; Learn from my brilliance;
            Five stars to the returns desk"""
        ),
    ),
    "warm": Tone(
        phrases(
            """I hope this helps somebody who is looking for a {T};
            A little note for anyone thinking about this {T};
            My family asked me to say something about the {B};
            We had been looking for a {T} for quite a while; Dear fellow shoppers, a few words on our {T};
            We have made room at home for a new {T}"""
        ),
        phrases(
            """We gave it every chance: {use}; It has been with us for {span} and {use};
            With {who} at my side, {use}; Let me tell you how it was: {use}; On a slow, happy weekend {use};
            It became part of the household when {use}"""
        ),
        phrases(
            """I am glad to say {c}; It makes me smile that {c}; Bless it, {c};
            What we treasure most is that {c}"""
        ),
        phrases(
            """I am sorry to say {c}; Sadly for us, {c}; With a heavy heart I add that {c};
            I wish I did not have to say it, {c}"""
        ),
        phrases(
            """It is a {int} {good} {T} and we are grateful for it; It has earned its place in our home;
            You can tell somebody cared while making it; We would not be without it any more;
            It brings a bit of comfort to every day; Thank you to the people at {B}, it is {good}"""
        ),
        phrases(
            """It tries its best and we forgive the rest; We have grown fond of it, faults and all;
            It may suit your home better than ours; We wish it were a little more {good};
            I think with some care it will do; Not quite what we hoped, though kindly meant"""
        ),
        phrases(
            """I take no pleasure in it, but it was {int} {bad}; It let us down and that made us sad;
            I really wished it well, and it was {bad}; We parted from it after {days};
            I am sure they meant well, yet it failed us; It was not made with care, I am afraid"""
        ),
        phrases(
            """May it serve you just as well; I hope you enjoy yours; Give one to somebody you love;
            With all my heart, go for it"""
        ),
        phrases(
            """I hope you find a better one; Please spare yourself the bother; Be kind to yourself and pass;
            Wishing you better luck"""
        ),
    ),
    "technical": Tone(
        phrases(
            """Test report for the {B} {T}, retail unit; Evaluated as a replacement for a worn {rival} {T};
            Sample size one, bought at full price; Unit inspected on arrival, no transport damage;
            Reviewing the {T} against its published specification;
            Firmware and markings checked before first use"""
        ),
        phrases(
            """Test protocol: {use}; Duty cycle over {span}: {use}; Under realistic load, {use};
            Data basis: {use}; Field conditions, {days}: {use}; Method: {use}"""
        ),
        phrases(
            """Measured result: {c}; Within specification: {c}; Positive finding, {c};
            Repeatable over five runs: {c}"""
        ),
        phrases(
            """Deviation: {c}; Out of tolerance: {c}; Negative finding, {c}; Failure mode observed: {c}"""
        ),
        phrases(
            """Overall the {T} meets its specification, {int} {good};
            Conclusion: {good} engineering, correct tolerances;
            The cost to performance ratio is {int} {good}; Net result positive on all counts that matter;
            No defects recorded, classification {good}; Performance margin is sufficient for daily load"""
        ),
        phrases(
            """Conclusion: nominal, with two reservations; The result is within the expected scatter;
            Performance is adequate at partial load only; Net result neutral, trade-offs as listed;
            Specification met in part; The design is {good}, the execution less so"""
        ),
        phrases(
            """Conclusion: {bad} design, unit returned; The {T} fails its own specification;
            Root cause is {int} {bad} quality control; Net result negative, not serviceable;
            Tolerances are {bad}, classification reject; Mean time to failure was {days}"""
        ),
        phrases(
            """Suitable for daily use; Approved for purchase; Recommended at list price or below;
            No further action required"""
        ),
        phrases(
            """Not approved for purchase; Revision required before I retest; Not recommended at any price;
            Consider a competing design"""
        ),
    ),
    "chatty": Tone(
        phrases(
            """So, right, I finally got myself a {T}; You know when you just need a {T}, well;
            Okay so {who} kept nagging me to get a {T}; Not gonna lie, I bought this {T} half asleep;
            Sooo the {B} turned up yesterday or so;
            Right, cup of tea in hand, let me tell you about this {T}"""
        ),
        phrases(
            """Anyway what happened was, {use}; So basically {use}; Funny story, {use};
            Me and {who}, right, we tested it, {use}; Like {span} ago it came and since then {use};
            Long evening short, {use}"""
        ),
        phrases("""Oh and {c}; And like, {c}; Plus, you know, {c}; Thing is, {c}"""),
        phrases("""But yeah, {c}; Mind you, {c}; Oh but get this, {c}; Only thing is, {c}"""),
        phrases(
            """So yeah, {int} {good}, I am well chuffed;
            Basically it is a {good} {T} and I want to keep it forever;
            Me and {who} fight over it now, it is that {good};
            It is {int} {good}, like, what more do you want; Yeah no, {good} {T}, very happy over here;
            I mean, it just works, does it not"""
        ),
        phrases(
            """So yeah, bit of a mixed bag this {T}; I dunno, it is kind of okay I guess;
            Some days I like it, some days I do not, you know; It is fine, like, fine fine;
            Could go either way with this {T} to be fair; Meh, but a friendly meh"""
        ),
        phrases(
            """So yeah, {int} {bad}, I am not having it; Nope, {bad} {T}, back in the box it went;
            Honestly what were they thinking, it is {bad};
            Me and {who} just looked at each other, {int} {bad}; Yeah no, I want my money back for this {T};
            I mean, come on, a {T} like that"""
        ),
        phrases(
            """Get one, go on; You will be fine with it, promise; Tell them I sent you;
            Do it, you know you want to"""
        ),
        phrases(
            """Do not bother, seriously; Get a different one, yeah; Save your pennies, mate;
            Swerve it, trust me"""
        ),
    ),
}

# beats in their order; the list forms are laid out by `writer`
STRUCTURES: dict[str, tuple[str, ...]] = {
    "verdict-first": ("verdict", "observations", "story", "advice"),
    "story-first": ("story", "observations", "verdict", "advice"),
    "pros-cons": ("opening", "pros-cons", "verdict", "advice"),
    "question": ("question", "story", "observations", "verdict", "ask-back"),
    "numbered": ("story", "numbered", "verdict", "advice"),
    "self-interview": ("opening", "self-interview", "verdict", "advice"),
    "scorecard": ("scorecard", "story", "verdict", "advice"),
    "comparison": ("compare", "observations", "story", "verdict"),
}
LENGTHS: dict[str, tuple[int, bool]] = {  # observations, and whether optional beats are kept
    "short": (2, False),
    "medium": (2, True),
    "long": (3, True),
}
OPTIONAL_BEATS = frozenset({"opening", "story", "advice", "ask-back"})

PUNCTUATION = {  # (between sentences, after the last one)
    "plain": (". ", "."),
    "bangs": ("! ", "!!"),
    "dots": ("... ", "..."),
    "dashes": (" - ", "."),
    "mixed-bangs": (". ", "!"),
    "tildes": (". ", " ~"),
}
SPELLING = ("plain", "contracted", "lower", "texting", "shouting", "no-apostrophe")
CONTRACTED = {  # never at the end of a clause: "so it is."
    r"\b(is|are|was|do|did|does|would|could|has|have) not\b": r"\1n't",
    r"\bcannot\b": "can't",
    r"\bI am(?= \w)": "I'm",
    r"(?<![Ww]ould )\b(I|[Ww]e|[Yy]ou) have(?= (?!to\b)\w)": r"\1've",
    r"\b(I|[Ww]e|[Yy]ou) will(?= \w)": r"\1'll",
    r"\b([Ii]t|[Tt]hat|[Tt]here) is(?= \w)": r"\1's",
    r"\b([Ww]e|[Yy]ou) are(?= \w)": r"\1're",
    r"\bI would(?= \w)": "I'd",
}
TEXTING = {
    r"\band\b": "&",
    r"\bwith\b": "w/",
    r"\b[Yy]ou\b": "u",
    r"\b[Yy]our\b": "ur",
    r"\bbecause\b": "bc",
    r"\bbefore\b": "b4",
    r"\babout\b": "abt",
    r"\bI am\b": "im",
    r"\b(do|is|would|did|was) not\b": r"\1nt",
    r"\bvery\b": "v",
    r"\bpeople\b": "ppl",
    r"\bthough\b": "tho",
}
UNITS = ("metric", "imperial")
GENEROSITY = {  # weights of 1..5 stars
    "kind": (3, 5, 12, 35, 45),
    "typical": (8, 10, 17, 35, 30),
    "strict": (15, 22, 30, 25, 8),
    "all-or-nothing": (28, 8, 6, 13, 45),
}
CATCHPHRASES = phrases(
    """all in all; long story short; to be fair; hand on heart; for what it is worth; at the end of the day;
    no two ways about it; if you ask me; in short; make of it what you will; my two cents"""
)
SIGN_OFFS = phrases(
    """Cheers, {name}; -- {initial}.; Hope that helps, {name} x; {name} out; #notsponsored;
    Regards, {name} ({town}); {name}, {town}; Signed, {name}; Happy shopping everyone :); Yours, {name};
    Over to you.; [{initial}.]"""
)
INTENSIFIERS = phrases(
    """really; properly; super; genuinely; ridiculously; seriously; thoroughly; surprisingly"""
)
GOOD_WORDS = phrases(
    """solid; lovely; brilliant; slick; decent; superb; cracking; fabulous; classy; splendid; neat"""
)
BAD_WORDS = phrases("""flimsy; hopeless; shoddy; sloppy; dismal; rubbish; lousy; pathetic; second-rate""")
COMPANIONS = phrases(
    """my wife; my husband; our youngest; my flatmate; my dad; my sister; the lodger; my gran; my partner"""
)
NAMES = phrases(
    """Maeve; Tobias; Priya; Joost; Carmen; Ewan; Nadia; Ruth; Kofi; Lena; Marco; Sigrid; Dot; Hamid; Beth;
    Yuki; Pavel"""
)
TOWNS = phrases(
    """Leeds; Galway; Utrecht; Bristol; Aarhus; Perth; Graz; Oslo; Turin; Cork; Malmo; Ghent; Bath"""
)

# --- passing contexts and noise -----------------------------------------------------------------------------

CONTEXTS = phrases(
    """Bought as a Christmas present, so this is second hand from the one who got it.;
    Typing this up for my mother, who does not do computers. Her words:;
    Written on behalf of our sports club, which ordered a few of these.;
    A birthday gift for my nephew. He reports:;
    I am looking after a friend's house and this is what he asked me to post:;
    Office purchase, the team agreed on the following:"""
)
BOILERPLATE = phrases(
    """Item as described. Fast shipping. A+++; Great product, great seller, would buy again!;
    Good quality. Fast delivery. Thanks.; Arrived on time and well packaged. Five stars.;
    Exactly as pictured. Very happy with purchase.; AAA+++ seller, highly recommended, thank you;
    No complaints. Does what it says on the tin.; Ok product ok price ok delivery;
    I have not used it yet but it looks good.; Will update this review after I have used it."""
)
NOTICES = phrases(
    """Your parcel {code} has left our depot and will be delivered on {day} between 9:00 and 13:00.;
    Order {code} confirmed. You can return this item within 30 days. This mailbox is not monitored.;
    Dear customer, how did we do? Rate your purchase {code} and win a voucher. Terms apply.;
    Tracking {code}: handed to carrier. Status: in transit. Last scan {day}, 04:12."""
)
