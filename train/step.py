"""One optimisation step and one validation: what the loop repeats. Knows no files and no settings objects."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch

from epalm.errors import EpalmError
from epalm.train.bridge.model import EpalmModel
from epalm.train.data.batches import Batch
from epalm.train.lm.loss import Losses
from epalm.train.lm.processes import ALONE, Processes
from epalm.train.runs.train_state import Validation

_FLOAT16_SCALE = 4096.0  # of the loss, so that small gradients are not lost
CONNECTOR = "connector"  # the group of tensors whose rate is on the schedule


@dataclass(frozen=True, slots=True)
class Schedule:
    """The connector's rates: `warmup_lr` → `peak_lr` over `warmup_steps`, then down to `min_lr` over `epochs` epochs.

    Linear by step, then a cosine by epoch (eP-ALM, supplementary material).
    """

    warmup_steps: int
    warmup_lr: float
    peak_lr: float
    min_lr: float
    epochs: int

    def rate(self, step: int, epoch: int) -> float:
        """The rate of step `step` (from 0), which lies in epoch `epoch` (from 0)."""
        if step < self.warmup_steps:
            return self.warmup_lr + (self.peak_lr - self.warmup_lr) * step / self.warmup_steps
        fall = 0.5 * (1 + math.cos(math.pi * epoch / self.epochs))
        return self.min_lr + (self.peak_lr - self.min_lr) * fall


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """How long, how fast and how often; `steps` counts batches in all."""

    steps: int
    schedule: Schedule
    fixed_lr: float
    lm_lr: float
    encoder_lr: float
    weight_decay: float
    loss_weight: float
    validate_every: int
    micro_batches: int = 1  # parts that a process does its share of a step in: less memory, the same sums


class Stepped(NamedTuple):
    """Of one step: the loss per sample in nats, unweighted, still on the device; whether any process is to stop."""

    loss: torch.Tensor
    stop: bool


def make_optimiser(model: EpalmModel, hyper: Hyperparameters) -> torch.optim.AdamW:
    """AdamW over the trainable tensors, in named groups: the connector's on the schedule, the others at fixed rates."""
    rates = {CONNECTOR: hyper.schedule.rate(0, 0), "fixed": hyper.fixed_lr, "lm": hyper.lm_lr}
    rates["encoder"] = hyper.encoder_lr
    groups: dict[str, list[torch.nn.Parameter]] = {name: [] for name in rates}
    for name, tensor in model.trainable_tensors().items():
        part = name.partition(".")[0]
        groups[part if part in rates else "fixed"].append(tensor)
    return torch.optim.AdamW(
        [{"params": tensors, "lr": rates[name], "name": name} for name, tensors in groups.items() if tensors],
        weight_decay=hyper.weight_decay,
    )


def take_step(
    model: EpalmModel,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    *,
    loss_weight: float,
    micro_batches: int = 1,
    processes: Processes = ALONE,
    stop: Callable[[], bool] = lambda: False,
) -> Stepped:
    """One optimisation step on one batch, each process with its share of it; all processes learn what `stop` says.

    Gradients are those of the whole batch's mean loss, however many processes and micro-batches it is done in.

    Raises:
        EpalmError: the memory does not suffice; the message says for what and what to change.
    """
    # Small gradients of hidden states would be lost in float16; the trained tensors are float32.
    scale = _FLOAT16_SCALE if model.lm.dtype == torch.float16 else 1.0
    loss = torch.zeros((), device=batch.labels.device)
    with _enough_memory(batch, micro_batches):
        for part in batch.parts(micro_batches):
            own = losses_of(model, part).loss[: part.own_samples].sum() / part.all_samples
            (scale * loss_weight * own).backward()
            loss += own.detach()
        # Every process has gradients for the same tensors: their shares are of one length, filled where need be.
        gradients = [
            tensor.grad for group in optimiser.param_groups for tensor in group["params"] if tensor.grad is not None
        ]
        stopping = stop()  # as late as all can still hear of it
        sums = torch.stack([loss, torch.full_like(loss, stopping)])
        processes.add_up([*gradients, sums])
        if scale != 1:
            torch._foreach_div_(gradients, scale)
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return Stepped(sums[0], stopping if processes.count == 1 else bool(sums[1] > 0))


def losses_of(model: EpalmModel, batch: Batch) -> Losses:
    """Loss and exactness of each of a batch's samples."""
    return model.losses(batch.features, batch.input_ids, batch.attention_mask, batch.labels)


@torch.no_grad()
def validate(
    model: EpalmModel, batches: Sequence[Batch], *, device: torch.device, processes: Processes = ALONE
) -> Validation | None:
    """Loss and exactness over batches, with the text given (teacher forcing); the same in all processes.

    Raises:
        EpalmError: the memory does not suffice.
    """
    if not batches:
        return None
    model.eval()
    sums = []
    for batch in (batch.to(device) for batch in batches):
        with _enough_memory(batch, 1):
            each = losses_of(model, batch)
        sums.append(torch.stack([values[: batch.own_samples].float().sum() for values in each]))
    model.train()
    total = torch.stack(sums).cpu().double().sum(0)
    processes.add_up([total])
    samples = sum(batch.all_samples for batch in batches)
    return Validation(float(total[0]) / samples, float(total[1]) / samples, samples)


@contextmanager
def _enough_memory(batch: Batch, parts: int) -> Iterator[None]:
    """Turn a lack of memory into one message. Raises EpalmError."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        rows, tokens = batch.labels.shape
        where = "GPU" if batch.labels.is_cuda else "computer"
        raise EpalmError(
            f"the {where}'s memory does not suffice for a batch of {rows} samples × {tokens} tokens"
            + (f" in {parts} parts" if parts > 1 else ""),
            hint=f"--set optim.micro_batches={2 * parts} takes smaller parts with the same result, --set "
            "optim.gradient_checkpointing=true saves memory for time, --set lm.dtype=bfloat16 halves the LM",
        ) from error
