"""A run as a folder to hand on: trained tensors, settings, and a card that says what they are.

The folder is read like a run. Of where it was trained, only what frozen models were named by goes along.
"""

import json
from pathlib import Path
from typing import Any

from epalm.cache.objects.durable import write_atomically
from epalm.datasets import short_name
from epalm.errors import EpalmError, UsageError
from epalm.figures import hundred, interval_in_words, samples_in_words
from epalm.train.runs.run_folder import RunFolder

_KEPT = ("modality", "width", "lm", "epalm", "imported")  # of a run's inputs
_OF_FEATURES = ("encoder", "layers", "preprocessing", "choice")


def export_run(run: RunFolder, out: Path, *, checkpoint: str = "best") -> int:
    """Write the run's checkpoint into a new folder; how many bytes that takes.

    Raises:
        UsageError: the checkpoint is missing or damaged, or something is at `out` already.
        EpalmError: the folder cannot be written.
    """
    inputs, (tensors, step) = run.inputs, run.load(checkpoint)
    try:
        out.mkdir(parents=True)
    except FileExistsError as error:
        raise UsageError(f"{out} is there already", hint="name a folder that is not") from error
    except OSError as error:
        raise EpalmError(f"{out} cannot be made: {error}", hint="name another folder") from error
    kept = {key: inputs[key] for key in _KEPT if key in inputs}
    features = {"source": "live", "view_seed": None, **{key: inputs["features"][key] for key in _OF_FEATURES}}
    exported = RunFolder(out)
    exported.begin(run.config, {**kept, "data": "", "features": features})
    exported.save_only(tensors, step=step)
    card = _card(run, features, sum(tensor.numel() for tensor in tensors.values()))
    write_atomically(out / "README.md", card.encode())
    return sum(path.stat().st_size for path in out.iterdir())


def _card(run: RunFolder, features: dict[str, Any], parameters: int) -> str:
    inputs, config, model, lm = run.inputs, run.config, run.config.model, run.config.lm.name
    weights = json.loads(features["choice"]["encoder"])["weights"] if features["choice"] else None
    base = f"base_model: {lm}\n" if lm.count("/") == 1 and not lm.startswith((".", "/")) else ""
    return f"""---
library_name: epalm
{base}tags:
- eP-ALM
- {inputs["modality"]}
---

# {run.name}

The trained part of an eP-ALM model (*Efficient Perceptual Augmentation of Language Models*, ICCV 2023): what lets a
frozen language model take {inputs["modality"]} input. {config.description}

| | |
| --- | --- |
| variant | {model.variant}: connector {model.connector}, prompt {model.prompt}, adapters {model.adapters} |
| trained parameters | {parameters:,} |
| language model | {lm}, {config.lm.dtype} |
| encoder | {features["encoder"].get("kind", "")}, weights {weights or "as published"} |
| perceptual tokens | {model.tokens}, into blocks {model.start} to {model.end}, attention {model.attention} |
{_scores(run)}
```python
import epalm

model = epalm.load("path/of/this/folder")
print(model.answer("file", "what is it?"), model.caption("file"))
```

Language model and encoder are not in here: they are loaded by name, and their weights are checked against those of
the training.
"""


def _scores(run: RunFolder) -> str:
    """Rows of the card, one a measure, where the run was scored; of what data and of how many samples it is."""
    path = run.path / "scores.json"
    if not path.is_file():
        return ""
    scores = json.loads(path.read_text(encoding="utf-8"))
    of = f"split {scores['split']} of {short_name(str(scores['data']))}"
    return "".join(
        f"| {task}, {name} | {hundred(one['value'])} ({interval_in_words(one)}), {samples_in_words(one)}, {of} |\n"
        for task, of_task in scores["tasks"].items()
        for name, one in of_task["figures"].items()
    )
