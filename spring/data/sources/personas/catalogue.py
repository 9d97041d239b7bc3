"""The catalogue of products that personas write about, and what one does with them (data of `writer`).

A feature is "phrase of the description / what a review calls it (+ where plural) / aspect it is judged by";
`[a|b]` is drawn once per product. Uses are clauses that hold whatever came of the product.
"""

from __future__ import annotations

import re


def phrases(text: str) -> tuple[str, ...]:
    """The phrases of a bank, parted by semicolons or line ends."""
    return tuple(part.strip() for part in re.split(r"[;\n]", text) if part.strip())


BRANDS = phrases(
    """Brevva; Kestrel; Nordhaus; Tamsin; Olvia; Peakline; Hartwell; Zubo; Mirante; Fenwick; Solace; Quillon;
    Ravello; Dunmore; Yarra; Cobalt; Lumea; Grovet; Vantor; Birchway"""
)
MODELS = phrases(
    """Nova; Trail; Mini; Pro 2; Essential; X4; Duo; Heritage; Swift; Max; Lite; S200; Classic; Air; Compact;
    R3; Plus; Evo; Select; One"""
)

# category -> "full name|head noun" -> features
CATALOGUE: dict[str, dict[str, tuple[str, ...]]] = {
    "kitchen": {
        "coffee grinder|grinder": phrases(
            """[31|40|60] grind settings / the grind settings+ / controls
            a [200|250|350] g bean hopper / the hopper / capacity
            a low-noise [90|120|150] W motor / the motor / noise
            removable [steel|ceramic] burrs / the burrs+ / cleaning"""
        ),
        "electric kettle|kettle": phrases(
            """a [1.5|1.7|1.2] litre jug / the jug / capacity
            a fast [2200|3000|1600] W element / the heating element / power
            a [brushed steel|matt black|cream] finish / the finish / looks
            boil-dry shut-off / the shut-off / safety"""
        ),
        "air fryer|fryer": phrases(
            """a [4|5.5|7] litre basket / the basket / capacity
            [six|eight|ten] touch presets / the presets+ / controls
            a non-stick [ceramic|steel] tray / the tray / cleaning
            a quiet [low-speed|two-speed|brushless] fan / the fan / noise"""
        ),
        "hand blender|blender": phrases(
            """a [600|700|1000] W motor / the motor / power
            a soft-touch [rubber|silicone] grip / the grip / comfort
            a detachable [steel|aluminium] foot / the foot / cleaning
            a [click-on|twist-lock] whisk / the whisk / fit"""
        ),
    },
    "audio": {
        "wireless headset|headset": phrases(
            """[30|45|60] hours of battery / the battery / battery
            padded [velour|leatherette] ear cushions / the ear cushions+ / comfort
            a noise-cancelling [boom|dual] microphone / the microphone / sound
            a [steel|stepless] adjustable headband / the headband / fit"""
        ),
        "bluetooth speaker|speaker": phrases(
            """[40|50|75] mm drivers / the drivers+ / sound
            an [IPX5|IPX7|IP67] sealed shell / the shell / water
            a [12|16|20] hour battery / the battery / battery
            a [rope|folding] carry handle / the carry handle / carry"""
        ),
        "soundbar|soundbar": phrases(
            """a [wired|wireless] subwoofer / the subwoofer / sound
            a [slim|backlit] remote / the remote / controls
            a [fabric|slatted oak|steel] front / the front / looks
            a wall [bracket|rail] kit / the wall mount / setup"""
        ),
        "portable radio|radio": phrases(
            """[DAB and FM|FM and AM] tuning / the tuning / controls
            a [telescopic|folding] aerial / the aerial / build
            a [20|30|14] hour battery / the battery / battery
            a [retro green|walnut|red] case / the case / looks"""
        ),
    },
    "camping": {
        "two-person tent|tent": phrases(
            """a [3000|2000|5000] mm rain fly / the rain fly / water
            [colour-coded|pre-bent] poles / the poles+ / setup
            a [roomy|gear-sized] porch / the porch / capacity
            a [1.9|2.4|2.8] kg pack size / the pack size / carry"""
        ),
        "sleeping bag|sleeping bag": phrases(
            """a [brushed|recycled] polyester lining / the lining / material
            a [two-way|snag-free] zip / the zip / build
            a [drawstring|contoured] hood / the hood / fit
            a [roll-top|mesh] stuff sack / the stuff sack / carry"""
        ),
        "hiking backpack|backpack": phrases(
            """a [45|55|65] litre main compartment / the main compartment / capacity
            padded [mesh|foam] hip straps / the hip straps+ / comfort
            a [stowable|bright] rain cover / the rain cover / water
            [welded|double-stitched] seams / the seams+ / build"""
        ),
        "camping stove|stove": phrases(
            """a [2.6|3.2|3.5] kW burner / the burner / power
            a [piezo|push-button] igniter / the igniter / safety
            folding [steel|titanium] legs / the legs+ / build
            a wipe-clean [drip|wind] tray / the tray / cleaning"""
        ),
    },
    "baby": {
        "city stroller|stroller": phrases(
            """a one-hand [fold|folding frame] / the folding frame / carry
            a five-point [padded|magnetic] harness / the harness / safety
            a [washable|reversible] seat pad / the seat pad / material
            [puncture-free|foam] wheels / the wheels+ / build"""
        ),
        "baby monitor|monitor": phrases(
            """a [wide-angle|night-vision] camera / the camera / accuracy
            a two-way [speaker|intercom] / the speaker / sound
            a [10|12|14] hour parent unit battery / the parent unit battery / battery
            a [magnetic|clip-on] mount / the mount / setup"""
        ),
        "high chair|high chair": phrases(
            """a dishwasher-safe [tray|double tray] / the tray / cleaning
            [six|five|seven] seat heights / the seat heights+ / fit
            [beech|oak|steel] legs / the legs+ / build
            a [cotton|wipe-down] cushion / the cushion / comfort"""
        ),
        "bottle warmer|bottle warmer": phrases(
            """a [3|4|5] minute warm cycle / the warm cycle / power
            a [keep-warm|defrost] timer / the timer / accuracy
            a [lift-out|rounded] basket / the basket / cleaning
            automatic [shut-off|cut-out] / the cut-out / safety"""
        ),
    },
    "office": {
        "standing desk|desk": phrases(
            """a [dual|single] lifting motor / the lifting motor / noise
            a [160|140|120] cm bamboo top / the top / looks
            [four|three] memory buttons / the memory buttons+ / controls
            a [bolt-on|snap-in] steel frame / the frame / setup"""
        ),
        "desk lamp|lamp": phrases(
            """a [touch|rotary] dimmer / the dimmer / controls
            a [jointed|gooseneck] arm / the arm / build
            a [brass|white|sage] shade / the shade / looks
            a [clamp|weighted] base / the base / fit"""
        ),
        "mechanical keyboard|keyboard": phrases(
            """[linear|tactile] switches / the switches+ / noise
            a [magnetic|padded] wrist rest / the wrist rest / comfort
            [double-shot|dye-sub] keycaps / the keycaps+ / build
            [200|150|300] hours of battery / the battery / battery"""
        ),
        "office chair|chair": phrases(
            """[adjustable|sprung] lumbar support / the lumbar support / comfort
            a breathable [mesh|knit] back / the back / material
            [flip-up|4-way] armrests / the armrests+ / fit
            [tool-free|hex-key] assembly / the assembly / setup"""
        ),
    },
    "pets": {
        "dog harness|harness": phrases(
            """[padded|fleece-lined] chest straps / the chest straps+ / comfort
            [four|two] adjustment points / the adjustment points+ / fit
            a [reflective|bright orange] trim / the trim / looks
            a [metal|locking] buckle / the buckle / safety"""
        ),
        "cat water fountain|fountain": phrases(
            """a near-silent [2 W|USB] pump / the pump / noise
            a [2|2.5|3] litre bowl / the bowl / capacity
            a [charcoal|foam] filter tray / the filter tray / cleaning
            a [steel|ceramic] spout / the spout / looks"""
        ),
        "pet carrier|carrier": phrases(
            """a [collapsible|wire] frame / the frame / carry
            a [fleece|washable] floor mat / the floor mat / material
            [lockable|double] zips / the zips+ / safety
            a [padded|cross-body] shoulder strap / the shoulder strap / comfort"""
        ),
        "automatic feeder|feeder": phrases(
            """a [four-meal|six-meal] schedule / the schedule / accuracy
            a [3|4|6] litre food bin / the food bin / capacity
            [portion|camera] control by app / the app / controls
            a [twist-lock|latched] lid / the lid / safety"""
        ),
    },
    "tools": {
        "cordless drill|drill": phrases(
            """a [2|4|5] Ah battery / the battery / battery
            a [brushless|two-speed] motor / the motor / power
            a [13|10] mm keyless chuck / the chuck / fit
            a [rubberised|slim] handle / the handle / comfort"""
        ),
        "laser level|laser level": phrases(
            """a self-levelling [cross-line|green] beam / the beam / accuracy
            a [magnetic|tripod] bracket / the bracket / setup
            an [IP54|IP65] housing / the housing / water
            a [10|15|12] hour battery / the battery / battery"""
        ),
        "folding workbench|workbench": phrases(
            """[steel|aluminium] legs / the legs+ / build
            a [bamboo|hardwood] clamping top / the clamping top / fit
            [fold-flat|snap-open] assembly / the assembly / setup
            a [carry|grab] handle / the carry handle / carry"""
        ),
        "pressure washer|pressure washer": phrases(
            """a [1700|2000|2400] W pump / the pump / power
            a [6|7|10] m hose / the hose / build
            a [sound-damped|rubber-mounted] motor / the motor / noise
            [three|five] quick-fit nozzles / the nozzles+ / fit"""
        ),
    },
    "fitness": {
        "yoga mat|yoga mat": phrases(
            """a [4|5|6] mm cushioned base / the base / comfort
            a natural [rubber|cork] surface / the surface / material
            a sweat-proof [top coat|coating] / the coating / water
            a [shoulder|velcro] carry strap / the carry strap / carry"""
        ),
        "exercise bike|bike": phrases(
            """a [magnetic|belt] drive / the drive / noise
            a [gel|wide] saddle / the saddle / comfort
            [16|24|32] resistance levels / the resistance levels+ / controls
            a [pulse|cadence] sensor / the sensor / accuracy"""
        ),
        "running watch|watch": phrases(
            """[dual-band|multi-band] GPS / the GPS / accuracy
            a [9|14|20] day battery / the battery / battery
            a [silicone|nylon] strap / the strap / comfort
            [five|three] side buttons / the side buttons+ / controls"""
        ),
        "vibrating foam roller|roller": phrases(
            """[four|three|five] vibration speeds / the vibration speeds+ / power
            a [ridged|smooth] EVA shell / the shell / material
            a [3|5] hour battery / the battery / battery
            a [mesh|zipped] travel bag / the travel bag / carry"""
        ),
    },
    "garden": {
        "hedge trimmer|trimmer": phrases(
            """[55|60|45] cm dual blades / the blades+ / power
            a [rotating|wrap-around] handle / the handle / comfort
            a [two-hand|tip] safety switch / the safety switch / safety
            a [36|24|40] V battery / the battery / battery"""
        ),
        "garden hose|hose": phrases(
            """[15|20|30] m of braided tubing / the tubing / build
            [brass|click-on] couplings / the couplings+ / fit
            a [seven|nine]-pattern spray gun / the spray gun / controls
            a wall [reel|hanger] / the wall hanger / setup"""
        ),
        "raised planter|planter": phrases(
            """[cedar|larch] boards / the boards+ / build
            a [60|90|120] litre trough / the trough / capacity
            [slot-in|screw-free] assembly / the assembly / setup
            a [honey|grey] oil finish / the finish / looks"""
        ),
        "robot mower|mower": phrases(
            """[boundary|camera] navigation / the navigation / accuracy
            a [quiet|58 dB] cutting deck / the cutting deck / noise
            a [rain-sensing|sealed] cover / the cover / water
            [zone|weekly] planning by app / the app / controls"""
        ),
    },
    "bedroom": {
        "memory foam pillow|pillow": phrases(
            """a [bamboo|cotton] cover / the cover / material
            a [contoured|dual-height] core / the core / comfort
            a [hidden|side] zip / the zip / build
            a [removable|cooling] layer / the inner layer / fit"""
        ),
        "weighted blanket|blanket": phrases(
            """[6|7|9] kg of glass beads / the beads+ / comfort
            a [minky|linen] cover / the cover / material
            [eight|ten] corner ties / the corner ties+ / fit
            a [slate|rust|navy] colour / the colour / looks"""
        ),
        "mattress topper|topper": phrases(
            """[5|7|10] cm of gel foam / the foam / comfort
            a [washable|knitted] cover / the cover / cleaning
            [elastic|non-slip] corner straps / the corner straps+ / fit
            a [vacuum|roll] pack / the roll pack / setup"""
        ),
        "air purifier|purifier": phrases(
            """a [22|24|19] dB night mode / the night mode / noise
            a [HEPA|two-stage] filter / the filter / power
            a [dust|PM2.5] sensor / the sensor / accuracy
            a [touch|dial] panel / the panel / controls"""
        ),
    },
}

# what one does with things of a category, whatever came of it
USES: dict[str, tuple[str, ...]] = {
    "kitchen": phrases(
        """I made Sunday brunch for eight with it; I used it every morning before work;
        it stood in for two older gadgets over Easter; I gave it a full week of dinners;
        I took it along to a rented holiday flat; I had the whole family over and put it to work"""
    ),
    "audio": phrases(
        """I listened to two long audiobooks on it; I ran it all day in the workshop;
        we had it going at a small garden party; I tried it with jazz, podcasts and a few films;
        I used it through a week of working from home; I compared it against the one in the car"""
    ),
    "camping": phrases(
        """I took it on a four-day walk, about {dist} a day; it spent a wet weekend in the hills with me;
        we used it on a cycling trip along the coast; it came along to a muddy festival;
        I tried it one frosty night in the garden first; I used it on {dist} of forest trails"""
    ),
    "baby": phrases(
        """we took it to my parents for a week; our daughter used it day in, day out;
        we had it along on a train journey with two changes; the twins put it through a lot;
        it came home with us in the first month; we lent it to friends and got it back"""
    ),
    "office": phrases(
        """I spent a whole tax season with it; I used it eight hours a day;
        it went into the corner of the bedroom I call an office; I wrote most of a thesis chapter with it;
        I moved it between home and work twice; it has seen a month of video calls"""
    ),
    "pets": phrases(
        """our old spaniel tried it first; both cats inspected it for an hour;
        we used it on the drive to the vet, {dist} each way; the puppy did his best to eat it;
        it was in use while we were away for two nights; I tried it on my sister's terrier as well"""
    ),
    "tools": phrases(
        """I put up a whole wall of shelves with it; it helped me through a bathroom renovation;
        I used it on the shed roof in one long weekend; I built a bunk bed with its help;
        it got a day on the terrace in the cold; I lent it to my neighbour, who builds kitchens"""
    ),
    "fitness": phrases(
        """I trained with it four times a week; I used it while preparing for a {dist} race;
        it got me through a dull, rainy month indoors; I took it to the gym and back;
        I used it for my knee exercises; my whole running group had a go with it"""
    ),
    "garden": phrases(
        """it had a full season in our garden; I did my mother's garden with it as well;
        I used it on the overgrown end of the plot; it stood outside from April to September;
        I got it out every Saturday morning; it had to deal with heavy clay and a lot of ivy"""
    ),
    "bedroom": phrases(
        """I slept with it through a hot fortnight; we put it in the guest room first;
        I used it after a bad cold; I tried it for thirty nights in a row; it came with me to a noisy hotel;
        we had it in use all winter"""
    ),
}
