"""Runs small trainings in forked children, so that dozens of them can be killed in seconds: torch is imported once.

`python train_host.py` reads lines [RUNS, PLAN] (JSON) and answers each with a list of exit codes, negative for signals;
what the trainings say goes to RUNS/said. PLAN is a list; each entry is one training in a run folder below RUNS:
{"run": name} runs from where the folder stands to the end, {"at": n} is killed when its n-th step begins, {"disk": n}
at the n-th step that touches the disk, {"signal": number, "at": n} sends itself that signal there. "workers" threads
put batches together; keys with a dot are settings. What each training saw goes to RUNS/name.log, a JSON line each:
where it started, then its batches.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import OPTConfig, OPTForCausalLM

from epalm.cache.token_rules import TokenLayout
from epalm.cli.train import until_stopped
from epalm.recipes.config import load_config
from epalm.samples import Dataset, Modality, Sample, Task
from epalm.train import loop, run, setup
from epalm.train.bridge.model import EpalmModel
from epalm.train.data.batches import Batch
from epalm.train.data.text import load_text_format
from epalm.train.loop import TrainState, take_step, train_model
from epalm.train.material import Material
from epalm.train.request import TrainRequest
from epalm.train.runs.run_folder import RunFolder

STEPS, EPOCHS, SAMPLES, BATCH = 12, 3, 15, 4  # the last batch of an epoch is a smaller one
DISK = ("fsync", "link", "replace", "rename", "unlink", "rmdir", "mkdir", "truncate", "pwrite")
SETTINGS = (
    "model.tokens=2", "model.start=0", "model.end=2", "model.prompt_length=2", f"optim.epochs={EPOCHS}",
    f"optim.max_steps={STEPS}", f"optim.batch_size={BATCH}", "optim.warmup_steps=5", "optim.peak_lr=0.01",
    "eval.every_steps=5", "eval.val_samples=6", "checkpoint.every_steps=2", 'data.tasks=["qa"]',
)  # fmt: skip


class Numbered:
    """Features that say which sample they are of: their first token, which eight others are like."""

    layers, width, layout = 2, 3, TokenLayout(True, (2, 4))

    def gather(self, samples: Sequence[Sample], *, epoch: int | None = None) -> np.ndarray:
        tokens = np.arange(9)[:, None] / 9
        rows = [
            np.ones((2, 9, 3)) * tokens + float(sample.id) + (0 if epoch is None else epoch / 8) for sample in samples
        ]
        return np.stack(rows).astype(np.float32)

    def digests(self, samples: Sequence[Sample]) -> list[str]:
        return [sample.media for sample in samples]

    def describe(self) -> dict[str, Any]:
        return {"source": "cache", "set": "numbers", "layers": [0, 1], "views": [0], "choice": None}


def samples(split: str, count: int) -> tuple[Sample, ...]:
    """Questions of several lengths with two answers each."""
    return tuple(
        Sample(str(n), Modality.IMAGE, f"{n}.png", Task.QA, split, "what is it " * (1 + n % 4), {"a": 1.0, "b": 0.5})
        for n in range(count)
    )


def load(overrides: Sequence[str], *, workers: int) -> setup.Setup:
    """A training of a tiny model on these, with so many threads that put batches together."""
    config = load_config("playground", [*SETTINGS, *overrides])
    dataset = Dataset("numbers", Path(), samples("train", SAMPLES))
    request, parts = TrainRequest(device="cpu", workers=workers), (dataset.samples, samples("val", 6))
    return setup.set_up(Material(request, config, dataset, Modality.IMAGE, Numbered(), *parts))


def patch_language_model() -> None:
    """From now on the playground's language model is a tiny one, made anew each time."""
    own, own_text = vars(setup)["load_lm"], vars(setup)["load_text_format"]

    def load_lm(name: str = "playground", *words: Any, **options: Any) -> Any:
        if name != "playground":
            return own(name, *words, **options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            sizes = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16, "num_attention_heads": 2}
            config = OPTConfig(vocab_size=560, num_hidden_layers=3, max_position_embeddings=64, **sizes)
            return OPTForCausalLM(config).eval().requires_grad_(False)

    text = load_text_format("playground", load_lm())

    def load_text(name: str, *words: Any) -> Any:
        return text if name == "playground" else own_text(name, *words)

    vars(setup).update(load_lm=load_lm, load_text_format=load_text)


def _watch(log: Path, at: int | None, act: Callable[[], None]) -> None:
    """Write down where the training starts and what each of its steps is given; call `act` in the step `at`."""
    seen = 0

    def note(line: Any) -> None:
        with log.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def started(*words: Any, start: TrainState, **options: Any) -> TrainState:
        note(start.step)
        return train_model(*words, start=start, **options)

    def stepped(model: EpalmModel, optimiser: torch.optim.Optimizer, batch: Batch, *words: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == at:
            act()
        note([batch.features[:, 0, 0, 0].tolist(), batch.input_ids.tolist()])
        return take_step(model, optimiser, batch, *words, **options)

    vars(run).update(train_model=started)
    vars(loop).update(take_step=stepped)


def _count_disk_steps(stop_at: int | None) -> list[int]:
    """Count what touches the disk, before and after each call; at `stop_at` the process kills itself."""
    steps = [0]

    def step() -> None:
        if steps[0] == stop_at:
            os.kill(os.getpid(), signal.SIGKILL)
        steps[0] += 1

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*words: Any, **options: Any) -> Any:
            step()
            result = call(*words, **options)
            step()
            return result

        return counted

    for name in DISK:
        setattr(os, name, wrap(getattr(os, name)))
    return steps


def _train(entry: dict[str, Any], runs: Path) -> int:
    name, number = entry["run"], entry.get("signal", signal.SIGKILL)
    _watch(runs / f"{name}.log", entry.get("at"), lambda: os.kill(os.getpid(), number))
    settings = [f"{key}={value}" for key, value in entry.items() if "." in key]
    loaded = load(settings, workers=entry.get("workers", 0))
    (runs / name).mkdir(exist_ok=True)
    steps = _count_disk_steps(entry.get("disk"))
    _, code = until_stopped(lambda stop: run.train(loaded, RunFolder(runs / name), stop=stop))
    (runs / f"{name}.steps").write_text(str(steps[0]))
    return code


def _result(entry: dict[str, Any], runs: Path) -> int:
    """What became of a child that does what an entry says."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    code = 70
    os.dup2(os.open(runs / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    try:
        code = _train(entry, runs)
    except Exception:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """See the module."""
    torch.set_num_threads(1)
    os.fsync = lambda fd: None  # slow, and a kill takes away nothing that was written
    patch_language_model()
    for line in sys.stdin:
        runs, plan = json.loads(line)
        print(json.dumps([_result(entry, Path(runs)) for entry in plan]), flush=True)


if __name__ == "__main__":
    main()
