"""In place of `epalm.api` in a bench: one that only gives what its functions give, and one that stops."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from epalm import api
from epalm.errors import EpalmError
from epalm.evaluate.request import ScoreRequest
from epalm.extract.request import ExtractRequest
from epalm.fingerprint import digest_json
from epalm.train.request import TrainRequest

SEEING, BLIND = 0.9, 0.3
NAMES = ("exact match", "VQA soft accuracy", "CIDEr", "BLEU-4")


class Runner:
    """Does nothing; `broken` is in the name of the run whose scoring fails, `bad` media are in every extraction."""

    def __init__(self) -> None:
        self.extracted: list[ExtractRequest] = []
        self.trained: list[TrainRequest] = []
        self.scored: list[ScoreRequest] = []
        self.broken, self.bad = "", 0

    def extract(self, request: ExtractRequest) -> Any:
        self.extracted.append(request)
        return SimpleNamespace(set_name=f"set-{len(self.extracted)}", bad=self.bad, ledger="the ledger")

    def train(self, request: TrainRequest, **_: object) -> dict[str, Any]:
        self.trained.append(request)
        settings = request.changes.settings or []
        name = "blind" if "model.blind=true" in settings else "seeing"
        summary = {"trainable_parameters": 12, "all_parameters": 1200, "seconds": 7.0, "steps": 10}
        return {**summary, "run": f"runs/{name}-{digest_json([request.modality, request.feature_set, settings])[:8]}"}

    def score(self, request: ScoreRequest) -> dict[str, Any]:
        assert request.run is not None
        if self.broken and self.broken in request.run:
            raise EpalmError("the scoring broke", hint="mend it")
        self.scored.append(request)
        value = BLIND if "blind" in request.run else SEEING
        counts = {"scored": 50, "expected": 50, "of": 50, "missing": 0}
        figures = {name: {"value": value, "low": value - 0.1, "high": value + 0.1, **counts} for name in NAMES}
        task = {"metrics": dict.fromkeys(NAMES, value), "figures": figures, "chance": dict.fromkeys(NAMES, 0.2)}
        return {"run": Path(request.run).name, "split": request.split, "tasks": {"qa": task, "caption": task}}


class Stopping:
    """Does what it is asked for; before the request number `stop` comes Ctrl-C."""

    def __init__(self) -> None:
        self.count, self.stop = 0, -1

    def __getattr__(self, name: str) -> Any:
        def counted(request: Any, **options: Any) -> Any:
            if self.count == self.stop:
                raise KeyboardInterrupt
            self.count += 1
            return getattr(api, name)(request, **options)

        return counted
