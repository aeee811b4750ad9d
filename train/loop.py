"""The training loop: steps, what is reported, when to validate and to save. Knows no files and no settings objects."""

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import torch

from epalm.console import progress
from epalm.errors import EpalmError
from epalm.train.bridge.model import EpalmModel
from epalm.train.data.batches import Batch, Batches
from epalm.train.lm.processes import ALONE, Processes
from epalm.train.runs.train_state import TrainState, Validation
from epalm.train.step import CONNECTOR, Hyperparameters, take_step, validate

_REPORT_EVERY = 10  # steps between two lines of metrics

Report = Callable[[Mapping[str, Any]], None]
Save = Callable[[TrainState], None]  # its best_step is its step when it is the best so far
Stop = Callable[[], bool]  # asked once a step: whether to save and end early


@dataclass(frozen=True, slots=True)
class Cadence:
    """When to save between two validations: after so many seconds or steps, whichever comes first."""

    seconds: float
    steps: int | None = None


def train_model(
    model: EpalmModel,
    optimiser: torch.optim.Optimizer,
    batches: Batches,
    validation: Sequence[Batch],
    hyper: Hyperparameters,
    *,
    start: TrainState,
    device: torch.device,
    cadence: Cadence,
    report: Report,
    save: Save,
    stop: Stop,
    processes: Processes = ALONE,
) -> TrainState:
    """Train the model in place from `start` on; where it ends: after `hyper.steps`, or earlier when `stop` says so.

    What was reported is saved in the end. All `processes` end after the same step when one of them is to stop.

    Raises:
        EpalmError: the loss is no number any more.
    """
    model.train()
    state, note = start, ""
    began = saved = time.perf_counter()
    with (
        progress("train", hyper.steps, "steps", done=start.step) as advance,
        closing(_steps(batches, state, hyper.steps)) as ahead,
    ):
        for epoch, position, batch in ahead:
            rate = hyper.schedule.rate(state.step, epoch)
            for group in optimiser.param_groups:
                if group["name"] == CONNECTOR:
                    group["lr"] = rate
            loss, stopping = take_step(
                model,
                optimiser,
                batch.to(device),
                loss_weight=hyper.loss_weight,
                micro_batches=hyper.micro_batches,
                processes=processes,
                stop=stop,
            )
            state = replace(state, step=state.step + 1, epoch=epoch, position=position + 1)
            last = state.step == hyper.steps
            if state.step % _REPORT_EVERY == 0 or last:
                value = _finite(float(loss), state.step)
                seconds, note = start.seconds + time.perf_counter() - began, f"loss {value:.3f} nats"
                report({"step": state.step, "epoch": epoch, "loss": value, "lr": rate, "seconds": seconds})
            advance(note=note)
            validated = state.step % hyper.validate_every == 0 or last
            if validated:
                result = validate(model, validation, device=device, processes=processes)
                if result is not None:
                    report(
                        {"step": state.step, "val_loss": result.loss, "val_exact": result.exact, "n": result.samples}
                    )
                state = _validated(state, result)
            if processes.count == 1:  # several learn of it with the next step's sums
                stopping = stop()
            now = time.perf_counter()
            if validated or stopping or _is_due(cadence, state.step, now - saved):
                _finite(float(loss), state.step)
                state = replace(state, seconds=start.seconds + now - began)
                save(state)
                saved = time.perf_counter()
            if stopping:
                break
    return state


def _steps(batches: Batches, state: TrainState, steps: int) -> Generator[tuple[int, int, Batch]]:
    """(epoch, position in it, batch) from where the training stands, for as many epochs as `steps` take."""
    epoch, first, done = state.epoch, state.position, state.step
    while done < steps:
        with closing(batches.epoch(epoch, first=first)) as ahead:  # its threads end with it
            for position, batch in enumerate(ahead, first):
                yield epoch, position, batch
                done += 1
                if done == steps:
                    return
        epoch, first = epoch + 1, 0


def _validated(state: TrainState, result: Validation | None) -> TrainState:
    if result is None:
        return replace(state, best_step=state.step)
    if state.best is None or result.loss < state.best.loss:
        return replace(state, validation=result, best=result, best_step=state.step)
    return replace(state, validation=result)


def _is_due(cadence: Cadence, step: int, seconds: float) -> bool:
    return seconds > cadence.seconds or (cadence.steps is not None and step % cadence.steps == 0)


def _finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise EpalmError(
            f"the loss is {loss} after step {step}",
            hint="lower --set optim.peak_lr, or use lm.dtype float32 or bfloat16",
        )
    return loss
