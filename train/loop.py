"""How a model is trained: learning rates, one optimisation step, one validation, and the loop over them.

The loop says what to report, when to validate and when to save. Knows no files.
"""

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import torch

from epalm.console import progress
from epalm.errors import EpalmError
from epalm.recipes.config import Config
from epalm.recipes.settings import OptimSettings
from epalm.train.bridge.model import EpalmModel
from epalm.train.data.batches import Batch, Batches
from epalm.train.lm.loss import Losses
from epalm.train.lm.processes import ALONE, Processes
from epalm.train.runs.tracking import Report

CONNECTOR = "connector"  # the group of tensors whose rate is on the schedule
_REPORT_EVERY = 10  # steps between two lines of metrics
LACKS_MEMORY = ("can't allocate memory", "out of memory")  # as a CPU says it, and a GPU
_FLOAT16_SCALE = 4096.0  # of the loss, so that small gradients are not lost


@dataclass(frozen=True, slots=True)
class Schedule:
    """How many steps a training takes, and the connector's rate in each (eP-ALM, supplementary material)."""

    optim: OptimSettings
    steps_per_epoch: int

    @property
    def steps(self) -> int:
        """In all."""
        steps = self.optim.epochs * self.steps_per_epoch
        return min(steps, self.optim.max_steps or steps)

    @property
    def epochs(self) -> int:
        """That are begun."""
        return math.ceil(self.steps / self.steps_per_epoch)

    def rate(self, step: int) -> float:
        """The rate of a step (from 0): linear by step up to `peak_lr`, then a cosine down to `min_lr`."""
        optim = self.optim
        if step < optim.warmup_steps:
            return optim.warmup_lr + (optim.peak_lr - optim.warmup_lr) * step / optim.warmup_steps
        if optim.cosine == "epoch":
            way = step // self.steps_per_epoch / self.epochs
        else:
            way = (step - optim.warmup_steps) / (self.steps - optim.warmup_steps)
        return optim.min_lr + (optim.peak_lr - optim.min_lr) * 0.5 * (1 + math.cos(math.pi * way))


@dataclass(frozen=True, slots=True)
class Validation:
    """Of the validation samples: mean loss in nats, and the share whose every target token is the likeliest."""

    loss: float
    exact: float
    samples: int


@dataclass(frozen=True, slots=True)
class TrainState:
    """After `step` steps, which took `seconds`.

    `validation` is the latest, `best` the one with the least loss, after `best_step` steps; None before the first.
    Without anything to validate on, every checkpoint is the best.
    """

    step: int = 0
    seconds: float = 0.0
    validation: Validation | None = None
    best: Validation | None = None
    best_step: int | None = None


Save = Callable[[TrainState], None]  # its best_step is its step when it is the best so far
Stop = Callable[[], bool]  # asked once a step: whether to save and end early


def make_optimiser(model: EpalmModel, optim: OptimSettings) -> torch.optim.AdamW:
    """AdamW over the trainable tensors, in named groups: the connector's on the schedule, the others at fixed rates."""
    rates = {CONNECTOR: optim.peak_lr, "fixed": optim.fixed_lr, "lm": optim.lm_lr, "encoder": optim.encoder_lr}
    groups: dict[str, list[torch.nn.Parameter]] = {name: [] for name in rates}
    for name, tensor in model.trainable_tensors().items():
        part = name.partition(".")[0]
        groups[part if part in rates else "fixed"].append(tensor)
    return torch.optim.AdamW(
        [{"params": tensors, "lr": rates[name], "name": name} for name, tensors in groups.items() if tensors],
        weight_decay=optim.weight_decay,
        eps=optim.adam_eps,
    )


def take_step(
    model: EpalmModel,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    optim: OptimSettings,
    *,
    processes: Processes = ALONE,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[torch.Tensor, bool]:
    """One optimisation step on one batch, each process with its share of it; all processes learn what `stop` says.

    Gives the loss per sample in nats, unweighted, still on the device, and whether any process is to stop. Gradients
    are those of the whole batch's mean loss, however many processes and micro-batches it is done in. Raises EpalmError:
    the memory does not suffice; the message says for what and what to change.
    """
    # Small gradients of hidden states would be lost in float16; the trained tensors are float32.
    scale = _FLOAT16_SCALE if model.lm.plain.dtype == torch.float16 else 1.0
    loss = torch.zeros((), device=batch.labels.device)
    with _enough_memory(batch, optim.micro_batches):
        for part in batch.parts(optim.micro_batches):
            own = losses_of(model, part, optim.label_smoothing).loss[: part.own_samples].sum() / part.all_samples
            (scale * optim.loss_weight * own).backward()
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
        if optim.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([*model.trainable_tensors().values()], optim.clip_norm)
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return sums[0], stopping if processes.count == 1 else bool(sums[1] > 0)


def losses_of(model: EpalmModel, batch: Batch, smoothing: float = 0.0) -> Losses:
    """Loss and exactness of each of a batch's samples."""
    return model.losses(batch.features, batch.input_ids, batch.attention_mask, batch.labels, smoothing)


@torch.no_grad()
def validate(model: EpalmModel, batches: Iterable[Batch], processes: Processes = ALONE) -> Validation | None:
    """Loss and exactness over batches, with the text given (teacher forcing); the same in all processes.

    Raises EpalmError: the memory does not suffice.
    """
    model.eval()
    sums, samples = [], 0
    for batch in (batch.to(model.device) for batch in batches):
        with _enough_memory(batch, 1):
            each = losses_of(model, batch)
        sums.append(torch.stack([values[: batch.own_samples].float().sum() for values in each]))
        samples += batch.all_samples
    model.train()
    if not sums:
        return None
    total = torch.stack(sums).cpu().double().sum(0)
    processes.add_up([total])
    return Validation(float(total[0]) / samples, float(total[1]) / samples, samples)


@contextmanager
def _enough_memory(batch: Batch, parts: int) -> Iterator[None]:
    """Turn a lack of memory into one message. Raises EpalmError."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in LACKS_MEMORY):
            raise
        rows, tokens = batch.labels.shape
        where = "GPU" if batch.labels.is_cuda else "computer"
        raise EpalmError(
            f"the {where}'s memory does not suffice for a batch of {rows} samples × {tokens} tokens"
            + (f" in {parts} parts" if parts > 1 else ""),
            hint=f"--set optim.micro_batches={2 * parts} takes smaller parts with the same result, --set "
            "optim.gradient_checkpointing=true saves memory for time, --set lm.dtype=bfloat16 halves the LM",
        ) from error


def train_model(
    model: EpalmModel,
    optimiser: torch.optim.Optimizer,
    batches: Batches,
    validation: Iterable[Batch],
    config: Config,
    *,
    start: TrainState,
    report: Report,
    save: Save,
    stop: Stop,
) -> TrainState:
    """Train the model in place from `start` on; where it ends: after the last step, or earlier when `stop` says so.

    What was reported is saved in the end. All processes that share the batches end after the same step when one of them
    is to stop. `validation` is gone through again and again. Raises EpalmError: the loss is no number any more.
    """
    schedule, optim, keep = Schedule(config.optim, len(batches)), config.optim, config.checkpoint
    device, processes = model.device, batches.processes
    (connector,) = (group for group in optimiser.param_groups if group["name"] == CONNECTOR)
    model.train()
    state, note = start, ""
    began = saved = time.perf_counter()
    with (
        progress("train", schedule.steps, "steps", done=start.step) as advance,
        closing(_steps(batches, start.step, schedule.steps)) as ahead,
    ):
        for step, batch in enumerate(ahead, start.step + 1):
            connector["lr"] = schedule.rate(step - 1)
            model.begin_step(optim.seed, step, processes.rank)
            loss, stopping = take_step(model, optimiser, batch.to(device), optim, processes=processes, stop=stop)
            state, last = replace(state, step=step), step == schedule.steps
            if step % _REPORT_EVERY == 0 or last:
                value, seconds = _finite(float(loss), step), start.seconds + time.perf_counter() - began
                epoch, note = (step - 1) // len(batches), f"loss {value:.3f} nats"
                report({"step": step, "epoch": epoch, "loss": value, "lr": connector["lr"], "seconds": seconds})
            advance(note=note)
            validated = step % config.eval.every_steps == 0 or last
            if validated:
                result = validate(model, validation, processes)
                if result is not None:
                    report({"step": step, "val_loss": result.loss, "val_exact": result.exact, "n": result.samples})
                    state = replace(state, validation=result)
                best = state.best
                if result is None or best is None or result.loss < best.loss or math.isnan(best.loss):
                    state = replace(state, best=result, best_step=step)
            if processes.count == 1:  # several learn of it with the next step's sums
                stopping = stop()
            now = time.perf_counter()
            due = now - saved > 60 * keep.every_minutes or (keep.every_steps and step % keep.every_steps == 0)
            if validated or stopping or due:
                _finite(float(loss), step)
                state = replace(state, seconds=start.seconds + now - began)
                save(state)
                saved = time.perf_counter()
            if stopping:
                break
    return state


def _steps(batches: Batches, done: int, steps: int) -> Generator[Batch]:
    """The batch of each step behind the first `done`."""
    while done < steps:
        epoch, first = divmod(done, len(batches))
        with closing(batches.epoch(epoch, first=first)) as ahead:  # its threads end with it
            for batch in islice(ahead, steps - done):
                yield batch
                done += 1


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        fault = f"the loss is {loss} after step {step}"
        raise EpalmError(fault, hint="lower --set optim.peak_lr, or use lm.dtype float32 or bfloat16")
    return loss
