"""One optimisation step, one validation: what the loop does over and over. Knows no files and no settings objects."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from epalm.train.batches import Batch
from epalm.train.loss import Losses
from epalm.train.model import EpalmModel
from epalm.train.schedule import Schedule

_FLOAT16_SCALE = 4096.0
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
    loss = losses_of(model, batch).loss.mean()
    # Small gradients of hidden states would be lost in float16; the trained tensors are float32.
    kept = _FLOAT16_SCALE if model.lm.dtype == torch.float16 else 1.0
    (kept * loss_scale * loss).backward()
    if kept != 1:
        for group in optimiser.param_groups:
            torch._foreach_div_([tensor.grad for tensor in group["params"] if tensor.grad is not None], kept)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return loss.detach()


def losses_of(model: EpalmModel, batch: Batch) -> Losses:
    """Loss and exactness of each of a batch's samples."""
    return model.losses(batch.features, batch.input_ids, batch.attention_mask, batch.labels)


@torch.no_grad()
def validate(model: EpalmModel, batches: Sequence[Batch], *, device: torch.device) -> Validation | None:
    """Loss and exactness over batches, with the text given (teacher forcing)."""
    if not batches:
        return None
    model.eval()
    losses, exact = [], []
    for batch in (batch.to(device) for batch in batches):
        each = losses_of(model, batch)
        losses.append(each.loss.cpu())
        exact.append(each.exact.cpu())
    model.train()
    return Validation(float(torch.cat(losses).mean()), float(torch.cat(exact).float().mean()), len(torch.cat(losses)))
