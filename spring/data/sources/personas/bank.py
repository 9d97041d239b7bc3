"""What personas can say about products: observations, comparisons, questions, summaries.

Markup: `{F}` is a feature ("the hopper"), with `{is}`, `{has}`, `{it}`, `{its}` agreeing in number; `{M}`,
`{m}`, `{n}` are features without their article; `{T}` is the head noun of the product ("grinder"), `{B}`
its brand, `{rival}` another brand; `{who}`, `{span}`, `{days}`, `{dist}`, `{int}`, `{good}`, `{bad}` are
what this persona says for a companion, times, a distance, "very", praise and blame; `{use}` is what the
product was used for, `{c}` a clause. Every phrase is one way of saying it, without its full stop.
"""

from __future__ import annotations

from spring.data.sources.personas.catalogue import phrases

ASPECTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "battery": (
        phrases(
            """{F} lasted the whole weekend on one charge; I charge {F} on Sunday and that does for the week;
            {F} still showed half after {days}; {F} {is} the least of my worries;
            I have yet to run {F} down; {F} kept going longer than I did"""
        ),
        phrases(
            """{F} {is} flat by lunchtime; {F} drained just standing on the shelf;
            {F} died halfway through twice; you end up planning your day around {F};
            {F} needed the charger every single evening; half the promised time is all I got from {F}"""
        ),
    ),
    "noise": (
        phrases(
            """{F} {is} quiet enough to run while {who} sleeps; I hardly hear {F} over the radio;
            {F} never rose above a low hum; nobody in the next room noticed {F};
            you can talk over {F} without raising your voice; the loudest thing about {F} was the unboxing"""
        ),
        phrases(
            """{F} {is} louder than our old vacuum cleaner; {F} whined at a pitch that upsets the dog;
            {F} woke {who} every time; {F} rattled from the first day;
            you can forget about phone calls near {F}; {F} made a grinding sound I cannot place"""
        ),
    ),
    "cleaning": (
        phrases(
            """{F} came clean under the tap in seconds; a damp cloth and {F} looked like new;
            ten washes left no mark on {F}; dirt just wipes off {F}; I clean {F} in less than a minute;
            {F} {is} free of corners where grime can hide"""
        ),
        phrases(
            """dirt gets behind {F} where no brush reaches; {F} took longer to clean than to use;
            {F} {is} stained already; cleaning {F} is a job for a toothbrush;
            {F} never quite lost the old residue; I scrub {F} for ten minutes every time"""
        ),
    ),
    "capacity": (
        phrases(
            """{F} held enough for all of us; {F} {is} bigger than I expected;
            I fill {F} once and that is that for days; even on a busy day there was room left in {F};
            {F} took everything I asked of {it}; {F} {is} exactly the size I was after"""
        ),
        phrases(
            """{F} {is} too small for more than one; {F} needed seeing to all the time;
            I had expected far more room from {F}; {F} {is} full before you know it;
            {F} {is} a third smaller than the photos suggest; I outgrew {F} in {days}"""
        ),
    ),
    "comfort": (
        phrases(
            """{F} {is} comfortable even after two hours; {F} never pinched or rubbed;
            after ten minutes I forgot about {F} altogether; {F} {is} gentle where the old one left marks;
            even {who} had no complaints about {F}; my sore wrists and back approve of {F}"""
        ),
        phrases(
            """{F} dug in after twenty minutes; {F} left red marks; {F} {is} hard as a plank;
            {F} got hot and sticky; I kept shifting about because of {F};
            whoever designed {F} never had to use {it}"""
        ),
    ),
    "build": (
        phrases(
            """{F} {is} solid as a rock; {F} survived a drop onto the tiles;
            nothing about {F} wobbles or creaks; I see no wear on {F} after {span};
            {F} took rough treatment without a scratch; {F} felt like twice the price"""
        ),
        phrases(
            """{F} cracked within {days}; {F} {is} thin and bent under my thumb;
            {F} came loose on the second day; {F} started to wobble almost at once;
            I would not trust {F} past the winter; {F} arrived bent and stayed bent"""
        ),
    ),
    "controls": (
        phrases(
            """I had {F} worked out in a minute; {F} did exactly what you would expect;
            {F} {is} simple enough for {who}; I never once needed the manual for {F};
            {F} responded at the first touch; there is a logic to {F} that stays in your head"""
        ),
        phrases(
            """{F} {is} a riddle even with the manual; {F} reset overnight, every night;
            {F} ignored me half of the time; {F} {is} laid out by somebody who hates people;
            I still get {F} wrong after {span}; {who} gave up on {F} on day one"""
        ),
    ),
    "power": (
        phrases(
            """{F} {is} ready in half the time I was used to; {F} never once struggled;
            I have not found a job too hard for {F}; {F} {has} power to spare;
            {F} did in five minutes what used to take me twenty; {F} went at full strength from day one"""
        ),
        phrases(
            """{F} gave up on anything demanding; {F} {is} weaker than the box promises;
            {F} took ages to get going; I ended up doing the work of {F} by hand;
            {F} slowed to a crawl when it mattered; {F} did about half of what was promised"""
        ),
    ),
    "fit": (
        phrases(
            """{F} fitted first time; {F} {is} right for all of us; {F} sat snug and stayed put;
            I never had to readjust {F}; {F} went into place with a firm click;
            {F} held tight even when I pulled hard"""
        ),
        phrases(
            """{F} slipped every few minutes; {F} would not stay where I put {it};
            I never got {F} to sit straight; {F} {is} loose whatever I do; {F} came off without warning;
            {F} {is} made to some other measure than mine"""
        ),
    ),
    "setup": (
        phrases(
            """{F} took ten minutes and no swearing; {F} {is} easy enough for one person;
            the instructions for {F} were clear for once; I had {F} sorted before my tea was cold;
            {F} needed no second pair of hands; {F} went exactly like the drawing says"""
        ),
        phrases(
            """{F} took a whole evening and some bad language; parts for {F} were missing;
            the drawing for {F} might as well be upside down; I had to start over with {F} three times;
            {F} defeated both me and {who}; {F} needed tools that nobody owns"""
        ),
    ),
    "looks": (
        phrases(
            """{F} {is} even nicer than in the photos; visitors keep asking about {F};
            {F} went well with everything else we own; {F} {has} aged well over {span};
            I catch myself admiring {F}; {F} {is} the first thing people notice"""
        ),
        phrases(
            """{F} {is} nothing like the picture; {F} faded within {days};
            {F} scratched the first time I touched {it}; in daylight {F} {is} plain ugly;
            up close {F} {is} blotchy and cheap; {who} asked me to hide {F} from guests"""
        ),
    ),
    "carry": (
        phrases(
            """{F} made it easy to get up three flights of stairs; with {F} I can manage it one-handed;
            thanks to {F} it disappears into the car boot;
            {F} saved my back on the long walk to the station; with {F} it goes wherever I go;
            {who} had no trouble with {F} either"""
        ),
        phrases(
            """{F} or not, it is a pain to move about; even so, {F} {is} no help on stairs;
            it barely went into the car despite {F}; {F} gave me a stiff shoulder;
            I had to fight with {F} each time; {F} {is} awkward to hold"""
        ),
    ),
    "water": (
        phrases(
            """{F} stood up to a real downpour; water just beads off {F}; a wet night did nothing to {F};
            {F} shrugged off mud, spray and worse; I rinsed {F} under the tap and all was well;
            not one drop got past {F}"""
        ),
        phrases(
            """{F} let water through at the first shower; {F} {is} soaked within minutes;
            damp crept in around {F}; after one wet day {F} started to peel; {F} {is} splash-proof at best;
            {F} stayed clammy for days"""
        ),
    ),
    "material": (
        phrases(
            """{F} {is} soft without being flimsy; {F} came out of the wash the same size;
            {F} felt better than anything at this price; my fussy skin is fine with {F};
            {F} stayed cool in the heat; {F} {has} not lost {its} shape"""
        ),
        phrases(
            """{F} wore thin after {days}; {F} {is} scratchy; {F} lost {its} shape in no time;
            {F} smelled of chemicals for days; {F} felt like a plastic bag; bits of {F} came off on day one"""
        ),
    ),
    "accuracy": (
        phrases(
            """{F} {is} spot on whenever I check; I tested {F} against two others and all agreed;
            {F} caught things I would have missed; {F} {has} not been wrong yet; I trust {F} blindly by now;
            {F} kept pace even when I tried to confuse {it}"""
        ),
        phrases(
            """{F} {is} off by a good ten per cent; {F} behaved differently every day;
            two tries with {F} never gave the same result; {F} froze at the worst moment;
            I stopped believing {F} after {days}; {F} got it wrong while {who} watched"""
        ),
    ),
    "sound": (
        phrases(
            """{F} {is} clear even at low volume; voices come through {F} clean and natural;
            I noticed the quality of {F} within a minute; {F} filled the whole room;
            {who} heard the difference from {F} at once; {F} stayed clean when I turned it up"""
        ),
        phrases(
            """{F} {is} muddy as soon as you turn it up; {F} crackled all the time;
            everything from {F} sounds like a tin can; {F} cut out every now and then;
            there is a hiss from {F} that never goes away; {who} thought I had broken {F}"""
        ),
    ),
    "safety": (
        phrases(
            """{F} worked every time I tried; {F} gave us peace of mind; I no longer worry, because of {F};
            {F} held against some determined tugging; {F} did the job the one time it mattered;
            {F} {is} the reason {who} uses it too"""
        ),
        phrases(
            """{F} failed when I tried it on purpose; {F} {is} more for show than for safety;
            {who} defeated {F} in a minute; {F} acted up at random; I would not rely on {F};
            {F} got stuck and had to be forced"""
        ),
    ),
}

COMPARE: tuple[tuple[str, ...], tuple[str, ...]] = (
    phrases(
        """Coming from a {rival} {T}, this is a clear step up;
        My old {rival} {T} was dearer and not half as good; Side by side with the {rival} one, the {B} wins;
        I sent a {rival} {T} back and kept this; We own a {rival} {T} too and it now gathers dust;
        It does all that the {rival} {T} did, with less fuss"""
    ),
    phrases(
        """Coming from a {rival} {T}, this is a step down; My old {rival} {T} was cheaper and beats it;
        Side by side with the {rival} one, the {B} loses; I should have stayed with my {rival} {T};
        We own a {rival} {T} too and that is the one we use;
        What my {rival} {T} did easily, this does badly"""
    ),
)

QUESTIONS = phrases(
    """Do you care about {F} as much as I do?; Who else picks a {T} for {F}?;
    How important {is} {F} to you, honestly?; What do you expect from {F} at this price?;
    Ever bought a {T} just because of {F}?; Looking at {F} and wondering whether the {B} will do?"""
)
ASK_BACK = phrases(
    """Has anyone had a different experience?; Or is it just me?; Would you have kept it?;
    What are you all using instead?; Does yours do the same?; Any tips from long-time owners?"""
)
NOTHING_BAD = phrases(
    """none so far; still looking; nothing worth a line; the price, if I must; ask me next year"""
)
NOTHING_GOOD = phrases(
    """the cardboard box; it exists; the returns label; none that I found; easy to give away"""
)

SUMMARIES: dict[int, tuple[str, ...]] = {
    5: phrases(
        """Best {T} I have owned; {M} better than expected; Worth every penny, great {m};
        Very happy with this {T}; Excellent {T}, no complaints at all; The {B} got the {m} right"""
    ),
    4: phrases(
        """Very good {T}, nearly perfect; Good buy, mostly thanks to {m}; Happy with it, small niggles;
        {M} good, {T} good value; Strong {T} for the price; Would buy this {T} again"""
    ),
    3: phrases(
        """Average {T}, mixed feelings; Good {m}, weak {n}; Does the job, nothing more;
        {M} fine, {n} disappointing; Two sides to this {T}; Okay {T}, not great"""
    ),
    2: phrases(
        """Disappointed by the {m}; Expected more from {B}; Not a {T} I recommend; Poor {m}, poor {T};
        Too many problems for me; Below average {T}"""
    ),
    1: phrases(
        """Avoid this {T}; Sent it straight back; Waste of money, awful {m}; Worst {T} I have tried;
        {M} failed, refund requested; Do not buy this {T}"""
    ),
}
