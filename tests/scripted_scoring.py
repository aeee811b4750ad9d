"""Scorings without a model: what is decoded is a function of all that a model would see."""

import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np

from epalm.cache.token_rules import TokenLayout
from epalm.evaluate.decoding.options import DecodeOptions
from epalm.evaluate.decoding.predictions import what_decides
from epalm.evaluate.run import ScorePlan, execute_score
from epalm.recipes.config import load_config
from epalm.samples import Dataset, Prediction, Sample, Task
from epalm.train.bridge.build import ONE_TOKEN
from epalm.train.data.text import TextFormat
from epalm.train.runs.loading import LoadedRun
from epalm.train.runs.run_folder import RunFolder

CONFIG = load_config("playground", [])
WORDS = ("red", "a big red circle", "two")


@dataclass
class Bytes:
    """Features of media that are texts in memory."""

    media: Mapping[str, str]
    name: str = "vit"
    layers: int = 6
    width: int = 8
    layout: TokenLayout = ONE_TOKEN

    def gather(self, samples: Sequence[Sample], *, epoch: int | None = None) -> np.ndarray:
        raise AssertionError

    def digests(self, samples: Sequence[Sample]) -> list[str]:
        return [sha256(self.media[sample.media].encode()).hexdigest() for sample in samples]

    def describe(self) -> dict[str, Any]:
        return {"source": "cache", "encoder": self.name, "set": "any", "choice": None}


@dataclass
class Scripted:
    """Decodes what is a function of all that a model and a tokenizer see, and notes what it is asked for."""

    asked: list[str] = field(default_factory=list)

    def decode(
        self, run: LoadedRun, features: Bytes, samples: Sequence[Sample], options: DecodeOptions
    ) -> Generator[list[Prediction]]:
        for sample in samples:
            chosen = replace(options, answers=options.answers if sample.task is Task.QA else ())
            seen = [run.text.question(sample), features.digests([sample]), features.name, run.trained]
            drawn = sample.id if options.sampling else ""
            name = json.dumps([seen, sample.task, chosen.deciding(), drawn])
            assert name not in self.asked, "decoded twice"
            self.asked.append(name)
            number = int(sha256(name.encode()).hexdigest(), 16)
            yield [Prediction(sample.id, f"{WORDS[number % 3]}{'!' * (number % 5)}")]


@dataclass
class World:
    """Data that change and a run, which stays."""

    text: TextFormat
    samples: list[Sample]
    media: dict[str, str]
    trained: str = "weights"
    encoder: str = "vit"
    decode: DecodeOptions = DecodeOptions()  # noqa: RUF009 (frozen)
    split: str = "test"
    limit: int | None = None
    metrics: tuple[str, ...] = ("exact match",)

    @property
    def features(self) -> Bytes:
        return Bytes(self.media, self.encoder)

    def run(self, folder: Path) -> LoadedRun:
        inputs = {"width": 8, "lm": "lm"}
        return LoadedRun(RunFolder(folder), CONFIG, cast(Any, None), self.text, inputs, 1, {}, self.trained)

    def score(self, folder: Path, engine: Scripted) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """What `epalm score` writes, but for names of files."""
        dataset = Dataset("data", folder, tuple(self.samples))
        samples = dataset.split(self.split)[: self.limit]
        run = self.run(folder)
        asked, path = what_decides(run, self.features, samples, self.decode, self.split)
        plan = ScorePlan(
            run,
            self.features,
            self.decode,
            about={"data": "data", "split": self.split, "limit": self.limit},
            there=dataset.split(self.split),
            expected=samples,
            asked=asked,
            path=path,
            metrics=self.metrics,
            decoder=engine.decode,
        )
        figures = execute_score(plan)
        lines = (folder / figures.pop("per_sample")).read_bytes().splitlines()
        return figures | {"run": "", "predictions": ""}, [json.loads(line) for line in lines]
