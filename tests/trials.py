"""A small data set, a tiny encoder and a cache that holds its rows, to be changed and extracted again as typed."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epalm.cache.store import Cache
from epalm.datasets import load_dataset
from epalm.extract.encoders.registry import EncoderChoice, build_encoder, default_kind
from epalm.playground.generate import generate_playground
from epalm.samples import Modality
from tests.conftest import Epalm, save_small_vit
from tests.extractions import Machine, extract_features
from tests.small_models import save_small_ast, save_small_timesformer

DEPTH, TRAIN, TEST = 4, 3, 2
BASE = ("--workers", 0, "--layers", "last:3", "--views", 1)
_SAVE = {Modality.IMAGE: save_small_vit, Modality.VIDEO: save_small_timesformer, Modality.AUDIO: save_small_ast}


def make_trial(root: Path, modality: Modality) -> None:
    """Media, weights and cache below a folder: view 0 of all, view 1 of the training split, layers 1 to 3."""
    generate_playground(root / "world", modality, counts=(TRAIN, 0, TEST))
    for path in (root / "world").rglob("*.*"):  # the index remembers nothing that has just been written
        os.utime(path, (1.7e9, 1.7e9))
    _SAVE[modality](root / "weights", depth=DEPTH)
    if modality is Modality.IMAGE:  # so that one set of weights takes pictures of several sizes
        path = root / "weights/config.json"
        config = json.loads(path.read_text())
        config["model_args"]["dynamic_img_size"] = True
        path.write_text(json.dumps(config))
    choice = EncoderChoice(default_kind(modality), str(root / "weights"), modality=modality)
    encoder = build_encoder(choice, device="cpu")
    dataset = load_dataset(str(root / "world"), modality)
    machine = Machine(workers=0)
    cache, layers = Cache(root / "cache"), (1, 2, 3)
    done = extract_features(dataset, modality, encoder, layers, cache, machine=machine, views=1, choice=choice)
    cache.remember(modality.value, done.set_name, layers, str(root / "world"))
    assert (done.encoded, done.bad) == (TRAIN + TEST, 0)


def latest_tensors(run: Path) -> bytes:
    """What the latest checkpoint of a run folder holds of trained tensors."""
    checkpoints = run / "checkpoints"
    return (checkpoints / (checkpoints / "latest").read_text().strip() / "trainable.safetensors").read_bytes()


@dataclass
class Trial:
    """What `make_trial` made, or a copy of it."""

    epalm: Epalm
    modality: Modality
    root: Path

    def __post_init__(self) -> None:
        self.world, self.weights, self.cache = (self.root / name for name in ("world", "weights", "cache"))

    @property
    def samples(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.world / "samples.jsonl").read_text().splitlines()]

    @samples.setter
    def samples(self, rows: list[dict[str, Any]]) -> None:
        (self.world / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    @property
    def media(self) -> list[Path]:
        return [self.world / name for name in dict.fromkeys(row["media"] for row in self.samples)]

    def configure(self, file: str, **values: Any) -> None:
        path = self.weights / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    def extract(self, *words: object) -> tuple[int, int]:
        """(hits, encoded) of an extraction, in which the words count more than what is usual here."""
        places = ("--data", self.world, "--weights", self.weights, "--cache", self.cache)
        done = self.epalm("extract", "-m", self.modality, *places, *BASE, "--json", *words)
        assert done.code in (0, 3), done.err
        summary = json.loads(done.out)
        return summary["hits"], summary["encoded"] + summary["bad"]
