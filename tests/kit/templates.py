"""Chat templates of the kinds that models come with, and what is said of them."""

from __future__ import annotations

TURN = "<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n"
GENERATE = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PLAIN = "{% for turn in messages %}" + TURN + "{% endfor %}" + GENERATE
DATED = (
    "{% set today = strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' %}"
    "<|im_start|>system\nToday is {{ today }}.\n{{ messages[0].content }}<|im_end|>\n"
    "{% for turn in messages[1:] %}" + TURN + "{% endfor %}" + GENERATE
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no place') }}{% endif %}" + PLAIN
DROPS_SYSTEM = "{% for turn in messages if turn.role != 'system' %}" + TURN + "{% endfor %}" + GENERATE
THOUGHT = "<think>\n\n</think>\n\n"
THINKING = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{% if turn.role == 'assistant' %}{{ THOUGHT }}"
    "{% endif %}{{ turn.content }}<|im_end|>\n{% endfor %}" + GENERATE
).replace("{{ THOUGHT }}", "{{ '<think>\n\n</think>\n\n' }}")
OPENS_A_THOUGHT = PLAIN.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
NO_GENERATION_PROMPT = "{% for turn in messages %}" + TURN + "{% endfor %}"
WITHOUT = "no system turn (its text stands before the user's)"
WORDS = "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}"
