"""The training loop: steps, validation, what is reported and when to save. Knows no files and no settings objects."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from epalm.console import progress
from epalm.errors import EpalmError
from epalm.train.batches import IGNORED, Batch, Batches
from epalm.train.loss import sample_losses
from epalm.train.model import EpalmModel
from epalm.train.schedule import Schedule

_FLOAT16_SCALE = 4096.0
_REPORT_EVERY = 10  # steps between two lines of metrics
_GROUPS = ("connector", "lm", "encoder")  # parts with a rate of their own; the others share the fixed one


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how fast and how often; `steps` counts batches in all."""

    steps: int
    schedule: Schedule
    fixed_lr: float
    lm_lr: float
    encoder_lr: float
    weight_decay: float
    loss_scale: float
    validate_every: int


@dataclass(frozen=True, slots=True)
class Validation:
    """Of the validation samples: mean loss in nats, and the share whose every target token is the likeliest."""

    loss: float
    exact: float
    samples: int


Report = Callable[[Mapping[str, Any]], None]
Save = Callable[[int, Validation | None, bool], None]  # step, validation, whether it is the best so far


def train_model(
    model: EpalmModel,
    batches: Batches,
    validation: Sequence[Batch],
    plan: Plan,
    *,
    device: torch.device,
    report: Report,
    save: Save,
) -> Validation | None:
    """Train the model in place; the last validation's result, None when there is nothing to validate on.

    Raises:
        EpalmError: the loss is no number any more.
    """
    model.to(device).train()
    optimiser = make_optimiser(model, plan)
    best = float("inf")
    result: Validation | None = None
    started, note = time.perf_counter(), ""
    with progress("train", plan.steps, "steps") as advance:
        for step, (epoch, batch) in enumerate(_steps(batches, plan.steps)):
            rate = plan.schedule.rate(step, epoch)
            optimiser.param_groups[0]["lr"] = rate
            loss = take_step(model, optimiser, batch.to(device), loss_scale=plan.loss_scale)
            done = step + 1
            if done % _REPORT_EVERY == 0 or done == plan.steps:
                value = _finite(float(loss), done)
                seconds, note = time.perf_counter() - started, f"loss {value:.3f} nats"
                report({"step": done, "epoch": epoch, "loss": value, "lr": rate, "seconds": seconds})
            advance(note=note)
            if done % plan.validate_every == 0 or done == plan.steps:
                result = validate(model, validation, device=device)
                if result is not None:
                    report({"step": done, "val_loss": result.loss, "val_exact": result.exact, "n": result.samples})
                better = result is None or result.loss < best
                best = min(best, result.loss) if result else best
                save(done, result, better)
    return result


def make_optimiser(model: EpalmModel, plan: Plan) -> torch.optim.AdamW:
    """AdamW over the trainable tensors: the connector's in group 0, on the schedule, the others at fixed rates."""
    rates = {"connector": plan.schedule.rate(0, 0), "fixed": plan.fixed_lr, "lm": plan.lm_lr}
    rates["encoder"] = plan.encoder_lr
    groups: dict[str, list[torch.nn.Parameter]] = {name: [] for name in rates}
    for name, tensor in model.trainable_tensors().items():
        part = name.partition(".")[0]
        groups[part if part in _GROUPS else "fixed"].append(tensor)
    return torch.optim.AdamW(
        [{"params": tensors, "lr": rates[name]} for name, tensors in groups.items() if tensors],
        weight_decay=plan.weight_decay,
    )


def take_step(model: EpalmModel, optimiser: torch.optim.Optimizer, batch: Batch, *, loss_scale: float) -> torch.Tensor:
    """One optimisation step on one batch; its loss per sample in nats, unscaled, still on the device."""
    logits = model(batch.features, batch.input_ids, batch.attention_mask)
    loss = sample_losses(logits, batch.labels).mean()
    # Small gradients of hidden states would be lost in float16; the trained tensors are float32.
    kept = _FLOAT16_SCALE if model.lm.dtype == torch.float16 else 1.0
    (kept * loss_scale * loss).backward()
    if kept != 1:
        for group in optimiser.param_groups:
            torch._foreach_div_([tensor.grad for tensor in group["params"] if tensor.grad is not None], kept)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return loss.detach()


@torch.no_grad()
def validate(model: EpalmModel, batches: Sequence[Batch], *, device: torch.device) -> Validation | None:
    """Loss and exactness over batches, with the text given (teacher forcing)."""
    if not batches:
        return None
    model.eval()
    losses, exact = [], []
    for batch in (batch.to(device) for batch in batches):
        logits = model(batch.features, batch.input_ids, batch.attention_mask)
        losses.append(sample_losses(logits, batch.labels).cpu())
        targets = batch.labels[:, 1:]
        exact.append(((logits[:, :-1].argmax(-1) == targets) | (targets == IGNORED)).all(1).cpu())
    model.train()
    return Validation(float(torch.cat(losses).mean()), float(torch.cat(exact).float().mean()), len(torch.cat(losses)))


def _steps(batches: Batches, steps: int) -> Iterator[tuple[int, Batch]]:
    """(epoch, batch) for as many epochs as `steps` take."""
    epoch = done = 0
    while done < steps:
        for batch in batches.epoch(epoch):
            yield epoch, batch
            done += 1
            if done == steps:
                return
        epoch += 1


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise EpalmError(
            f"the loss is {loss} after step {step}",
            hint="lower --set optim.peak_lr, or use lm.dtype float32 or bfloat16",
        )
    return loss
