"""One optimisation step, one validation: what the loop does over and over. Knows no files and no settings objects."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch

from epalm.errors import EpalmError
from epalm.train.bridge.model import EpalmModel
from epalm.train.data.batches import Batch
from epalm.train.lm.loss import Losses
from epalm.train.processes import ALONE, Processes
from epalm.train.runs.train_state import Validation
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
    loss_weight: float
    validate_every: int
    parts: int = 1  # that a process does its share of a step in: less memory, the same sums


class Stepped(NamedTuple):
    """Of one step: the loss per sample in nats, unscaled, still on the device; whether any process was told to stop."""

    loss: torch.Tensor
    stop: bool


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


def take_step(
    model: EpalmModel,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    *,
    loss_weight: float,
    parts: int = 1,
    processes: Processes = ALONE,
    stop: Callable[[], bool] = lambda: False,
) -> Stepped:
    """One optimisation step on one batch, each process with its share of it; what `stop` says is told to all of them.

    Gradients are those of the whole batch's mean loss, however many processes and parts it is done in.

    Raises:
        EpalmError: the memory does not suffice; the message says for what and what to change.
    """
    # Small gradients of hidden states would be lost in float16; the trained tensors are float32.
    kept = _FLOAT16_SCALE if model.lm.dtype == torch.float16 else 1.0
    loss = torch.zeros((), device=batch.labels.device)
    with _enough_memory(batch, parts):
        for part in batch.parts(parts):
            own = losses_of(model, part).loss[: part.own_samples].sum() / part.all_samples
            (kept * loss_weight * own).backward()
            loss += own.detach()
        # Every process has gradients for the same tensors: their shares are of one length, filled where need be.
        gradients = [
            tensor.grad for group in optimiser.param_groups for tensor in group["params"] if tensor.grad is not None
        ]
        asked = stop()  # as late as all can still hear of it
        told = torch.stack([loss, torch.full_like(loss, asked)])
        processes.add_up([*gradients, told])
        if kept != 1:
            torch._foreach_div_(gradients, kept)
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return Stepped(told[0], asked if processes.count == 1 else bool(told[1] > 0))


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
