"""One architecture under the engine against PEFT alone: log-likelihoods, training, answers.

Texts are of mixed length, some beyond the window and the limit of the positions, of the base model and three
adapters in one batch. Differences are of a random twin in float32, where a right engine is off by rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch

from bench.alone import Alone, Choice
from bench.architectures import Architecture
from bench.differences import apart_in_logp, apart_in_weights
from spring.engine.budget import Room
from spring.engine.decoding import generate
from spring.engine.fused import fuse
from spring.engine.layers import leaf
from spring.engine.lessons import Lesson
from spring.engine.lora import AdapterBank
from spring.engine.peft import save_adapter
from spring.engine.queries import Query
from spring.engine.roads import adaptable
from spring.engine.scoring import token_logps
from spring.engine.settings import Decoding, Learning, Lora
from spring.engine.survey import RefusedError, survey
from spring.engine.texts import Text
from spring.engine.training import train
from spring.engine.twins import TwinError, twin
from spring.engine.weights import one_line
from spring.method.mixing import Mixture

SLOTS, TARGETS = 3, 4
NATS, WEIGHTS, TIE = (
    2e-3,
    0.02,
    1e-3,
)  # differences beyond these are no rounding; tokens as near as TIE are equal
PROMPTS = (1, 30, 3, 12, 20, 6, 34, 9, 2, 15, 26, 11)  # tokens; the window is 8, the limit of positions 16
RESPONSES = (4, 12, 7, 2, 9, 5, 3, 8, 10, 1, 6, 4)
LAMBDAS = (0.5, 0.3, 0.9, 0.0, 1.0)
ATTENTION = ("attn", "attention", "mixer", "mamba", "conv", "time_mix")  # in names of modules that mix tokens


NO_DECODER = "no decoder-only language model"


def examine(one: Architecture, *, every: bool = False) -> dict[str, Any]:
    """What became of an architecture: the road it took and the differences, or why there are none.

    Adapters lie on up to four kinds of layers that mix tokens or, with `every`, on all linear layers.
    """
    began = perf_counter()
    row: dict[str, Any] = {"name": one.name, "type": one.kind}
    try:
        model = twin(configuration(one))
        row["class"] = type(model).__name__
        check_causal(model)
        weaken(model, one.sinks)
        row |= compare(model, every=every)
    except (RefusedError, TwinError) as error:
        row["refused"] = str(error)
    except Exception as error:  # a class may raise anything, and that is what is looked for
        row["failed"] = described(error)
    return {**row, "seconds": round(perf_counter() - began, 1)}


def described(error: Exception) -> str:
    """An error and its kind in a line."""
    return f"{type(error).__name__}: {one_line(error)}"


def configuration(one: Architecture) -> Any:
    """Its configuration; refuses halves of an encoder and a decoder."""
    try:
        config = one.config()
    except Exception as error:  # a class may raise anything
        raise RefusedError(f"no configuration by default: {described(error)}") from error
    if config.is_encoder_decoder:
        raise RefusedError(NO_DECODER)
    return config


@torch.no_grad()
def check_causal(model: Any) -> None:
    """Refuses what lets a token change the logits before it."""
    rows = torch.tensor([[*range(20, 40)], [*range(20, 39), 100]])
    logits = model(input_ids=rows, use_cache=False).logits[:, :-1].float()
    if (logits[0] - logits[1]).abs().max() > NATS:
        raise RefusedError(NO_DECODER)


def weaken(model: Any, by: float) -> None:
    """Adds to the attention sinks."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("sinks"):
                weight.add_(by)


# --- both sides -------------------------------------------------------------------------------------------


def compare(model: Any, *, every: bool) -> dict[str, Any]:
    """The road, and the differences of the four jobs."""
    plain, bare = deepcopy(model), deepcopy(model)
    fuse(model)
    found: dict[str, Any] = {"road": str(survey(model)), "targets": targets(model, every=every)}
    lora = Lora(r=4, alpha=8, dropout=0.0, target_modules=tuple(found["targets"]))
    bank = AdapterBank(model, lora, slots=SLOTS)
    bank.flat.normal_(std=0.15, generator=torch.Generator().manual_seed(1))
    states = [bank.state(slot) for slot in range(SLOTS)]
    alone = Alone(plain, lora, list(bank.layers), states)
    jobs: dict[str, Callable[[], dict[str, Any]]] = {
        "scoring": lambda: scoring(model, bank, alone),
        "answers": lambda: answering(model, bank, alone),
        "training": lambda: training(model, bank, alone),
        "saving": lambda: saving(bare, lora, alone),
    }
    for name, job in jobs.items():
        try:
            found[name] = job()
        except Exception as error:
            found[name] = {"error": described(error)}
    found["unused"] = alone.unused
    return {**found, "right": all(is_right(found[name]) for name in jobs)}


def targets(model: Any, *, every: bool) -> list[str]:
    """Up to four kinds of linear layers for adapters, of what mixes tokens if there are any; or `every`."""
    kind = model.config.model_type
    paths = [path for path in adaptable(model) if not peft_refuses(kind, leaf(path))]
    plain = [
        path for path in paths if every or leaf(path) != "gate_proj"
    ]  # by itself PEFT takes it for experts
    inside = [path for path in plain if any(word in path.lower() for word in ATTENTION)]
    names = sorted({leaf(path) for path in (paths if every else inside or plain)})
    return names if every else names[:TARGETS]


def peft_refuses(kind: str, name: str) -> bool:
    """Layers whose weight a fused kernel may take past any adapter: PEFT refuses them as targets."""
    return kind in ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h") and name == "out_proj"


def is_right(found: Mapping[str, Any]) -> bool:
    """Whether a job's differences are those of rounding."""
    return (
        "error" not in found
        and found.get("nats", 0.0) <= NATS
        and found.get("weights", 0.0) <= WEIGHTS
        and found.get("wrong", 0) == 0
    )


def tokens(generator: np.random.Generator, count: int) -> tuple[int, ...]:
    """So many tokens, none of them special."""
    return tuple(generator.integers(16, 160, count).tolist())


def texts(seed: int) -> list[Text]:
    """Twelve texts of the base model and every slot; two of each of two slots begin alike."""
    generator = np.random.default_rng(seed)
    sizes = zip(PROMPTS, RESPONSES, strict=True)
    found = [
        Text(tokens(generator, p), tokens(generator, r), i % (SLOTS + 1) - 1)
        for i, (p, r) in enumerate(sizes)
    ]
    start = tokens(generator, 12)
    return found + [Text(start + tokens(generator, 1 + i), tokens(generator, 5), i % 2) for i in range(4)]


def scoring(model: Any, bank: AdapterBank, alone: Alone) -> dict[str, Any]:
    """Largest difference of a response token's log p, and what the adapters change in it (nats)."""
    asked = texts(0)
    found = token_logps(model, bank, asked, budget=4096)
    expected = [alone.score(text).numpy() for text in asked]
    without = [alone.score(Text(text.prompt, text.response)).numpy() for text in asked]
    effect = min(
        max(
            float(np.abs(b - a).max())
            for text, a, b in zip(asked, expected, without, strict=True)
            if text.slot == s
        )
        for s in range(SLOTS)
    )
    return {"nats": apart_in_logp(found, expected), "adapters_nats": effect}


def training(model: Any, bank: AdapterBank, alone: Alone) -> dict[str, Any]:
    """How far trained adapters are apart, over how far they went; two lessons of two steps at once."""
    config = Learning(
        lora=bank.config, lr=0.01, weight_decay=0.1, warmup_ratio=0.0, epochs=1, batch_size=3, grad_clip=1.0,
        replay_share=0.0,
    )  # fmt: skip
    all_texts = [Text(text.prompt, text.response) for text in texts(1)]
    lessons = [Lesson(all_texts[6 * i : 6 * i + 6], alone.states[i], seed=i) for i in range(2)]
    learned = train(model, bank, lessons, config, budget=4096)
    ways = [
        apart_in_weights(alone.train(one, config), own.state, one.start or {})
        for one, own in zip(lessons, learned, strict=True)
    ]
    return {"weights": max(ways)}


def saving(bare: Any, lora: Lora, alone: Alone) -> dict[str, Any]:
    """Largest difference of a log p once PEFT has loaded an adapter's folder."""
    from peft import PeftModel

    row = tokens(np.random.default_rng(3), 14)
    with TemporaryDirectory() as folder:
        save_adapter(alone.states[0], lora, Path(folder), base_model="twin", model=bare)
        loaded = PeftModel.from_pretrained(bare, folder).eval()
    with torch.no_grad():
        found = loaded(input_ids=torch.tensor([row]), use_cache=False).logits[0]
        both = [logits.log_softmax(-1).numpy() for logits in (found.float(), alone.logits(row, 0))]
    return {"nats": apart_in_logp(both[:1], both[1:])}


def answering(model: Any, bank: AdapterBank, alone: Alone) -> dict[str, Any]:
    """Greedy answers of one and two paths that end at different times, and their references' log p."""
    asked = queries()
    settings = Decoding(repetition_penalty=1.2, max_new_tokens=12, join=Mixture())
    free = [alone.answer(query, settings, ()) for query in asked]
    stop = {choices[i % 7].token for i, choices in enumerate(free) if i % 2}
    found = generate(model, bank, asked, settings, stop=stop, room=Room(300), budget=200)
    judged = [agree(answer.tokens, choices, stop) for answer, choices in zip(found, free, strict=True)]
    expected = [alone.reference(query).numpy() for query in asked]
    return {
        "answers": len(asked),
        "wrong": judged.count("wrong"),
        "ties": judged.count("tie"),
        "lengths": sorted({len(answer.tokens) for answer in found}),
        "nats": apart_in_logp([answer.reference for answer in found], expected),
    }


def queries() -> list[Query]:
    """Prompts of 1 to 14 tokens, most with a context of 4 to 30 before it."""
    generator = np.random.default_rng(2)
    found = []
    for i in range(10):
        prompt = tokens(generator, 1 + (5 * i) % 14)
        context = tokens(generator, 4 + (7 * i) % 27) + prompt
        own = context if i % 4 else None
        found.append(Query(prompt, own, LAMBDAS[i % 5], i % (SLOTS + 1) - 1, tokens(generator, 5)))
    return found


def agree(found: Sequence[int], choices: Sequence[Choice], stop: set[int]) -> str:
    """Whether an answer is the expected one up to the first stop token, or differs where two were as good."""
    for place, choice in enumerate(choices):
        token = found[place] if place < len(found) else None
        if token != (None if choice.token in stop else choice.token):
            return "tie" if choice.ahead < TIE else "wrong"
        if token is None:
            return "equal"
    return "equal" if len(found) == len(choices) else "wrong"
