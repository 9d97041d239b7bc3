"""Chat templates in the form that families of models have theirs, written for tests; none is a copy.

A form is a template, the words of it that are tokens of their own, and what is found out about it.
"""

from __future__ import annotations

from typing import NamedTuple


class Form(NamedTuple):
    """One family's way to write a conversation."""

    source: str
    words: tuple[str, ...]
    said: str  # by the stage `model`
    asked: str  # a conversation up to where the answer's text begins: system S, user U
    end: str  # what stands behind an answer


EOS = "<eos>"
DAY = "its clock stands at 2026-01-01 (model.date)"
MERGED = "no system turn (its text stands before the user's)"
OFF = "enable_thinking is false"
CHAT_ML = ("<|im_start|>", "<|im_end|>")
THINK = (*CHAT_ML, "<think>", "</think>")
EMPTY = "<think>\n\n</think>\n\n"
ASKED = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"

_QWEN = r"""
{%- for turn in messages %}
    {%- if turn.role == 'assistant' and loop.last %}
        {{- '<|im_start|>assistant\n<think>\n\n</think>\n\n' + turn.content.lstrip('\n') }}
    {%- else %}
        {{- '<|im_start|>' + turn.role + '\n' + turn.content }}
    {%- endif %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    OTHERWISE
    {%- endif %}
{%- endif %}"""
_SMOLLM3 = r"""
{%- if enable_thinking is not defined %}
    {%- set enable_thinking = true %}
{%- endif %}
{%- set thought = '' if enable_thinking else '<think>\n\n</think>\n' %}
{{- '<|im_start|>system\nToday Date: ' + strftime_now('%d %B %Y') }}
{{- '\nReasoning Mode: ' + ('/think' if enable_thinking else '/no_think') }}
{%- for turn in messages %}
    {%- if turn.role == 'system' %}
        {{- '\n\n' + turn.content + '\n\n<|im_end|>\n' }}
    {%- elif turn.role == 'user' %}
        {{- '<|im_start|>user\n' + turn.content + '<|im_end|>\n' }}
    {%- else %}
        {%- generation %}
            {{- '<|im_start|>assistant\n' + thought + turn.content.lstrip('\n') + '<|im_end|>\n' }}
        {%- endgeneration %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' + thought }}
{%- endif %}"""
_LLAMA3 = r"""
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now('%d %b %Y') %}
    {%- else %}
        {%- set date_string = '26 Jul 2024' %}
    {%- endif %}
{%- endif %}
{%- if messages[0].role == 'system' %}
    {%- set own = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set own = '' %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string }}
{{- '\n\n' + own + '<|eot_id|>' }}
{%- for turn in messages %}
    {{- '<|start_header_id|>' + turn.role + '<|end_header_id|>\n\n' + turn.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"""
_GPT_OSS = r"""
{%- if reasoning_effort is not defined %}
    {%- set reasoning_effort = 'medium' %}
{%- endif %}
{{- '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') }}
{{- '\n\nReasoning: ' + reasoning_effort + '<|end|>' }}
{%- for turn in messages %}
    {%- if turn.role == 'system' %}
        {{- '<|start|>developer<|message|># Instructions\n\n' + turn.content + '\n\n<|end|>' }}
    {%- elif turn.role == 'user' %}
        {{- '<|start|>user<|message|>' + turn.content + '<|end|>' }}
    {%- else %}
        {{- '<|start|>assistant<|channel|>final<|message|>' + turn.content }}
        {{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant' }}
{%- endif %}"""
_GEMMA3 = r"""
{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set first = messages[0].content + '\n\n' %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set first = '' %}
    {%- set turns = messages %}
{%- endif %}
{%- for turn in turns %}
    {%- if (turn.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('turns must alternate') }}
    {%- endif %}
    {{- '<start_of_turn>' + ('model' if turn.role == 'assistant' else turn.role) + '\n' }}
    {{- (first if loop.first else '') + turn.content | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start_of_turn>model\n' }}
{%- endif %}"""
_GEMMA4 = r"""
{%- macro without(text) %}
    {%- for part in text.split('<channel|>') %}
        {{- part.split('<|channel>')[0] }}
    {%- endfor %}
{%- endmacro %}
{{- bos_token }}
{%- set ns = namespace(turns=messages) %}
{%- if (enable_thinking is defined and enable_thinking) or messages[0].role == 'system' %}
    {{- '<|turn>system\n' }}
    {%- if enable_thinking is defined and enable_thinking %}
        {{- '<|think|>\n' }}
    {%- endif %}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content | trim }}
        {%- set ns.turns = messages[1:] %}
    {%- endif %}
    {{- '<turn|>\n' }}
{%- endif %}
{%- for turn in ns.turns %}
    {%- if turn.role == 'assistant' %}
        {{- '<|turn>model\n' + without(turn.content) | trim + '<turn|>\n' }}
    {%- else %}
        {{- '<|turn>' + turn.role + '\n' + turn.content | trim + '<turn|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|turn>model\n' }}
    {%- if not enable_thinking | default(false) %}
        {{- '<|channel>thought\n<channel|>' }}
    {%- endif %}
{%- endif %}"""
_OLMO3 = r"""
{%- for turn in messages %}
    {%- if turn.role == 'system' %}
        {{- '<|im_start|>system\n' + turn.content + ' You have no functions.<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + turn.role + '\n' + turn.content }}
        {{- eos_token if loop.last and turn.role == 'assistant' else '<|im_end|>\n' }}
    {%- endif %}
    {%- if loop.last and add_generation_prompt %}
        {{- '<|im_start|>assistant\n<think>' }}
    {%- endif %}
{%- endfor %}"""
_MISTRAL = r"""
{%- if messages[0].role == 'system' %}
    {%- set own = messages[0].content %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{{- bos_token }}
{%- for turn in turns %}
    {%- if turn.role == 'user' %}
        {{- '[INST] ' + (own + '\n\n' if loop.last and own is defined else '') + turn.content + '[/INST]' }}
    {%- else %}
        {{- ' ' + turn.content + eos_token }}
    {%- endif %}
{%- endfor %}"""
_MISTRAL_SMALL = r"""
{%- set own = 'You are a model. Today is ' + strftime_now('%Y-%m-%d') %}
{%- if messages[0].role == 'system' %}
    {%- set own = messages[0].content %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{{- bos_token + '[SYSTEM_PROMPT]' + own + '[/SYSTEM_PROMPT]' }}
{%- for turn in turns %}
    {{- '[INST]' + turn.content + '[/INST]' if turn.role == 'user' else turn.content + eos_token }}
{%- endfor %}"""
_PHI4 = r"""
{%- for turn in messages %}
    {{- '<|' + turn.role + '|>' + turn.content + '<|end|>' }}
{%- endfor %}
{{- '<|assistant|>' if add_generation_prompt else eos_token }}"""

FORMS = {
    "qwen3": Form(  # the last answer has its thought before it, an empty one too
        _QWEN.replace("OTHERWISE", ""),
        THINK,
        f"system turn, ends with <|im_end|>, no clock, {OFF}",
        f"{ASKED}{EMPTY}",
        "<|im_end|>",
    ),
    "qwen3.5": Form(  # the prompt opens a thought unless told otherwise
        _QWEN.replace("OTHERWISE", r"{%- else %}{{- '<think>\n' }}"),
        THINK,
        f"system turn, ends with <|im_end|>, no clock, {OFF}",
        f"{ASKED}{EMPTY}",
        "<|im_end|>",
    ),
    "smollm3": Form(  # thinks unless told otherwise, and says so beside the day
        _SMOLLM3,
        THINK,
        f"system turn, ends with <|im_end|>, {DAY}, {OFF}",
        "<|im_start|>system\nToday Date: 01 January 2026\nReasoning Mode: /no_think\n\nS\n\n<|im_end|>\n"
        "<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n",
        "<|im_end|>",
    ),
    "llama3.2": Form(  # the day in the system turn, whoever calls may say it
        _LLAMA3,
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        f"system turn, ends with <|eot_id|>, {DAY}",
        "<bos><|start_header_id|>system<|end_header_id|>\n\nToday Date: 01 Jan 2026\n\nS<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nU<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
    ),
    "gpt-oss": Form(  # a turn names its channel, the prompt for an answer does not
        _GPT_OSS,
        ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"),
        f"system turn, ends with <|return|>, {DAY}, answers begin behind '<|channel|>final<|message|>'",
        "<|start|>system<|message|>Current date: 2026-01-01\n\nReasoning: medium<|end|>"
        "<|start|>developer<|message|># Instructions\n\nS\n\n<|end|><|start|>user<|message|>U<|end|>"
        "<|start|>assistant<|channel|>final<|message|>",
        "<|return|>",
    ),
    "gemma3": Form(  # the system text stands in the user's turn
        _GEMMA3,
        ("<start_of_turn>", "<end_of_turn>"),
        "system turn, ends with <end_of_turn>, no clock",
        "<bos><start_of_turn>user\nS\n\nU<end_of_turn>\n<start_of_turn>model\n",
        "<end_of_turn>",
    ),
    "gemma4": Form(  # without thinking the prompt closes a channel that finished turns leave out
        _GEMMA4,
        ("<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>"),
        f"system turn, ends with <turn|>, no clock, {OFF}, answers begin behind "
        r"'<|channel>thought\n<channel|>' (finished ones lack it)",
        "<bos><|turn>system\nS<turn|>\n<|turn>user\nU<turn|>\n<|turn>model\n<|channel>thought\n<channel|>",
        "<turn|>",
    ),
    "olmo3": Form(  # the last answer ends with the text's end, and the prompt opens a thought
        _OLMO3,
        THINK,
        f"system turn, ends with {EOS}, no clock, answers begin before '<think>'",
        ASKED.replace("S<", "S You have no functions.<"),
        EOS,
    ),
    "mistral": Form(  # the system text before the last question, and only while it is unanswered
        _MISTRAL,
        ("[INST]", "[/INST]"),
        f"{MERGED}, ends with {EOS}, no clock, answers begin behind ' '",
        "<bos>[INST] S\n\nU[/INST] ",
        EOS,
    ),
    "mistral-small": Form(  # a system turn of its own where nobody writes one, with the day in it
        _MISTRAL_SMALL,
        ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
        f"system turn, ends with {EOS}, {DAY}",
        "<bos>[SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST]U[/INST]",
        EOS,
    ),
    "phi4-mini": Form(  # turns in a row, and the text's end behind the last
        _PHI4,
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "system turn, ends with <|end|>, no clock",
        "<|system|>S<|end|><|user|>U<|end|><|assistant|>",
        "<|end|>",
    ),
}
