"""Two scored runs on playground media of all three modalities, among their samples some that mean to do harm."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from epalm.evaluate.given import score_given
from epalm.evaluate.request import ScoreRequest
from epalm.recipes.config import load_config
from epalm.samples import Modality
from epalm.train.runs.run_folder import RunFolder

HARM = '</script><img src=x onerror="window.harmed=1"><!-- {{ 7*7 }} \' & \u2028 \u202egnorw'
HARMFUL_ID = "<b>harm</b>"
MODALITIES = (Modality.IMAGE, Modality.VIDEO, Modality.AUDIO)
RUNS = ("careful", "hasty")
_METRICS = ("exact match", "CIDEr")


@pytest.fixture(scope="session")
def scored_runs(tmp_path_factory: pytest.TempPathFactory, worlds: Mapping[Modality, Path]) -> Path:
    """A folder with `data.jsonl` and the run folders `.epalm/runs/careful` and `hasty`; the former is the latest."""
    folder = tmp_path_factory.mktemp("reported")
    with contextlib.chdir(folder):
        root = worlds[Modality.IMAGE].parent
        samples = [line for modality in MODALITIES for line in _samples(worlds[modality], modality)]
        samples.append(samples[0] | {"id": HARMFUL_ID, "prompt": HARM, "answers": {HARM: 1.0}})
        samples.append(samples[1] | {"id": "gone", "media": "image/not-there.jpg"})
        Path("data.jsonl").write_text("".join(json.dumps(one) + "\n" for one in samples))
        for name, wrong_every in zip(RUNS, (7, 3), strict=True):
            _run(name, samples, wrong_every, f"data.jsonl:{root}")
        Path(".epalm/runs/careful/trainable.safetensors").touch()
    return folder


def _samples(world: Path, modality: Modality) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (world / "samples.jsonl").read_text().splitlines()]
    return [
        line | {"id": f"{modality}/{line['id']}", "media": f"{modality}/{line['media']}"}
        for line in lines
        if line["split"] == "test"
    ]


def _run(name: str, samples: Sequence[Mapping[str, Any]], wrong_every: int, data: str) -> None:
    file = Path(f"{name}.jsonl")
    lines = [{"id": one["id"], "text": _text(one, n % wrong_every == 0)} for n, one in enumerate(samples)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = Path(".epalm/runs") / name
    (run / "scores").mkdir(parents=True)
    score_given(ScoreRequest(predictions=file, data=data, metrics=",".join(_METRICS)), run / "scores/test.json")
    figures = json.loads((run / "scores/test.json").read_text())
    decode = {"num_beams": 3, "max_length": 30}
    figures |= {"run": name, "checkpoint_step": 40, "blind": name == "hasty", "decode": decode}
    (run / "scores/test.json").write_text(json.dumps(figures))
    (run / "config.toml").write_text(load_config("playground").to_toml())
    inputs = {"recipe": "playground", "modality": "image", "data": data, "data_root": "/home/me", "lm": "6b18" * 16}
    (run / "inputs.json").write_text(json.dumps(inputs))
    RunFolder(run).save_only({"connector.weight": torch.zeros(1)}, step=40)
    metrics = [{"step": step, "loss": 3 / step, "lr": 0.1} for step in range(1, 41)]
    metrics += [{"step": step, "val_loss": 4 / step, "val_exact": step / 50} for step in (20, 40)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))


def _text(sample: Mapping[str, Any], wrong: bool) -> str:
    if sample["id"] == HARMFUL_ID:
        return HARM
    right = next(iter(sample.get("answers") or sample["references"]))
    return f"not {right}" if wrong else str(right)
