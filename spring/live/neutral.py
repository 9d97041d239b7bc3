"""Neutral texts: what nobody's adapter is for, so that a shift of outputs on them is collateral.

Fixed for good: figures of drift are of these texts, and of no user's.
"""

from __future__ import annotations

SYSTEM = "You are a helpful assistant."
TEXTS = (  # questions, and answers that are read along
    ("Why is the sky blue?", "Air scatters the short waves of sunlight more than the long ones."),
    ("What is the capital of France?", "The capital of France is Paris, which lies on the river Seine."),
    (
        "How do I boil an egg?",
        "Put it into boiling water for eight minutes, then cool it under the tap.",
    ),
    ("What is seven times eight?", "Seven times eight is fifty-six."),
    ("Name the four seasons.", "The four seasons are spring, summer, autumn and winter."),
    ("What does a thermometer measure?", "A thermometer measures temperature, in degrees."),
    (
        "How does a plant live?",
        "It takes water from the soil, light from the sun, and makes sugar of them.",
    ),
    ("Give me a word that means happy.", "Glad, cheerful and content all mean nearly the same as happy."),
    ("How many days has a leap year?", "A leap year has 366 days; the one more is the 29th of February."),
    ("What is a triangle?", "A triangle is a figure with three straight sides and three corners."),
    (
        "How can I fall asleep sooner?",
        "Go to bed at the same hour, keep the room dark, put the phone away.",
    ),
    ("Who wrote Hamlet?", "William Shakespeare wrote Hamlet around the year 1600."),
    (
        "Write one sentence about rain.",
        "The rain fell softly on the roofs, and in the evening streets shone.",
    ),
    ("What is bread made of?", "Bread is made of flour, water, salt and yeast, and baked in an oven."),
    ("How do I thank a colleague?", "Thank you for your help yesterday; it saved me a whole day of work."),
    ("Print the numbers from one to five.", "1, 2, 3, 4, 5"),
)
