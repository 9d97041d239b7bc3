"""What people write today: transformers and PEFT, one text, one user, one query after another.

The public code of OPPU and CoPe works like this; nothing here is made slow on purpose. Prompts, batches,
schedule and settings are those of the engine, so that both sides compute the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spring.engine.lessons import Lesson, plan_batches
from spring.engine.optimizer import schedule
from spring.engine.queries import Query
from spring.engine.settings import Decoding, Learning, Lora
from spring.engine.texts import Text


def load(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """The model as transformers gives it."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    return model.to(device).eval()


def with_adapters(model: Any, lora: Lora, states: Mapping[str, Mapping[str, Tensor]]) -> Any:
    """A PEFT model with named adapters."""
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        task_type="CAUSAL_LM",
    )
    first, *others = states
    wrapped = get_peft_model(model, config, adapter_name=first)
    for name in others:
        wrapped.add_adapter(name, config)
    for name, state in states.items():
        set_peft_model_state_dict(wrapped, dict(state), adapter_name=name)
    return wrapped.eval()


@torch.inference_mode()
def score(model: Any, texts: Sequence[Text]) -> list[Tensor]:
    """log p of every response token, from the logits of the whole text."""
    found = []
    for text in texts:
        row = torch.tensor([text.prompt + text.response], device=model.device)
        logps = model(row).logits[0, :-1].float().log_softmax(-1)
        target = row[0, len(text.prompt) :]
        found.append(logps[len(text.prompt) - 1 :].gather(1, target[:, None])[:, 0].cpu())
    return found


def train(model: Any, lessons: Sequence[Lesson], config: Learning) -> list[dict[str, Tensor]]:
    """Trainer and PEFT, one user after another; the adapters under PEFT's names."""
    from peft import get_peft_model_state_dict
    from transformers import PrinterCallback, Trainer, TrainingArguments

    found = []
    for lesson in lessons:
        assert lesson.start is not None
        wrapped = with_adapters(model, config.lora, {"default": lesson.start})
        wrapped.train()
        plan = plan_batches(lesson, config)
        flat = [text for batch in plan for text in batch]
        ends = torch.tensor([0, *(len(batch) for batch in plan)]).cumsum(0).tolist()
        order = [list(range(a, b)) for a, b in pairwise(ends)]
        loader: Any = torch.utils.data.DataLoader(flat, batch_sampler=order, collate_fn=collate)  # type: ignore[arg-type]

        class Ordered(Trainer):
            """The lesson's own batches, in its own order."""

            def get_train_dataloader(self, loader: Any = loader) -> Any:
                return loader

        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=len(plan),
                max_grad_norm=config.grad_clip or 0,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                use_cpu=model.device.type == "cpu",
                dataloader_pin_memory=False,
                remove_unused_columns=False,
            )
            weights = [p for p in wrapped.parameters() if p.requires_grad]
            optimizer = torch.optim.AdamW(weights, lr=config.lr, weight_decay=config.weight_decay)
            factor = partial(schedule, steps=len(plan), warmup_ratio=config.warmup_ratio)
            rates = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
            trainer = Ordered(wrapped, arguments, train_dataset=flat, optimizers=(optimizer, rates))
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        state = get_peft_model_state_dict(wrapped)
        found.append({name: value.detach().float().cpu().clone() for name, value in state.items()})
        model = wrapped.unload()
    return found


def collate(batch: Sequence[Text]) -> dict[str, Tensor]:
    """Right-padded rows; labels only at responses."""
    longest = max(len(text) for text in batch)

    def padded(rows: list[list[int]], value: int) -> Tensor:
        return torch.tensor([row + [value] * (longest - len(row)) for row in rows])

    return {
        "input_ids": padded([list(text.prompt + text.response) for text in batch], 0),
        "attention_mask": padded([[1] * len(text) for text in batch], 0),
        "labels": padded([[-100] * len(text.prompt) + list(text.response) for text in batch], -100),
    }


@torch.inference_mode()
def generate(
    model: Any, queries: Sequence[Query], settings: Decoding, *, stop: Collection[int]
) -> list[list[int]]:
    """Query by query: two forward calls per token, each with its own cache, mixed, penalised, argmax.

    The adapter of slot i is named str(i).
    """
    from transformers import DynamicCache

    found = []
    for query in queries:
        model.set_adapter(str(query.slot))
        paths = [(prompt, weight, DynamicCache()) for prompt, weight in query.paths]
        tokens: list[int] = []
        while len(tokens) < settings.max_new_tokens:
            mixed = None
            for prompt, weight, cache in paths:
                row = torch.tensor([[tokens[-1]] if tokens else list(prompt)], device=model.device)
                logits = model(row, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1]
                logp = logits.float().log_softmax(-1) + torch.tensor(weight).log()
                mixed = logp if mixed is None else torch.logaddexp(mixed, logp)
            assert mixed is not None
            mixed[list(set(tokens))] *= settings.repetition_penalty
            token = int(mixed.argmax())
            if token in stop:
                break
            tokens.append(token)
        found.append(tokens)
    return found
