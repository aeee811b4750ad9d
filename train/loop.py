"""The training loop: steps, what is reported, when to validate and to save. Knows no files and no settings objects."""

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from typing import Any

import torch

from epalm.console import progress
from epalm.errors import EpalmError
from epalm.train.batches import Batch, Batches
from epalm.train.model import EpalmModel
from epalm.train.processes import ALONE, Processes
from epalm.train.step import Plan, Validation, make_optimiser, take_step, validate

_REPORT_EVERY = 10  # steps between two lines of metrics


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
    processes: Processes = ALONE,
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
    with progress("train", plan.steps, "steps") as advance, closing(_steps(batches, plan.steps)) as ahead:
        for step, (epoch, batch) in enumerate(ahead):
            rate = plan.schedule.rate(step, epoch)
            optimiser.param_groups[0]["lr"] = rate
            loss, _ = take_step(
                model,
                optimiser,
                batch.to(device),
                loss_scale=plan.loss_scale,
                parts=plan.parts,
                processes=processes,
            )
            done = step + 1
            if done % _REPORT_EVERY == 0 or done == plan.steps:
                value = _finite(float(loss), done)
                seconds, note = time.perf_counter() - started, f"loss {value:.3f} nats"
                report({"step": done, "epoch": epoch, "loss": value, "lr": rate, "seconds": seconds})
            advance(note=note)
            if done % plan.validate_every == 0 or done == plan.steps:
                result = validate(model, validation, device=device, processes=processes)
                if result is not None:
                    report({"step": done, "val_loss": result.loss, "val_exact": result.exact, "n": result.samples})
                better = result is None or result.loss < best
                best = min(best, result.loss) if result else best
                save(done, result, better)
    return result


def _steps(batches: Batches, steps: int) -> Generator[tuple[int, Batch]]:
    """(epoch, batch) for as many epochs as `steps` take."""
    epoch = done = 0
    while done < steps:
        with closing(batches.epoch(epoch)) as ahead:  # its threads end with it
            for batch in ahead:
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
