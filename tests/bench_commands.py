"""In place of `epalm.api` in a bench: one that only gives what its functions give, and one that stops."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from epalm import api
from epalm.errors import EpalmError
from epalm.evaluate.request import ScoreRequest
from epalm.extract.request import ExtractRequest
from epalm.fingerprint import digest_json
from epalm.train.request import TrainRequest

SEEING, BLIND = 0.9, 0.3


class Runner:
    """Does nothing; `broken` is in the name of the run whose scoring fails, `bad` media are in every extraction.

    Scores have the metrics that are asked for, except those that are `skipped`.
    """

    def __init__(self) -> None:
        self.extracted: list[ExtractRequest] = []
        self.trained: list[TrainRequest] = []
        self.scored: list[ScoreRequest] = []
        self.broken, self.bad, self.skipped = "", 0, ""

    def plan(self, request: ExtractRequest, *, dry: bool) -> Any:
        """Rows of all tokens serve those of some of them."""
        assert dry
        tokens = request.tokens or "cls"
        name = f"set-{digest_json([request.modality, request.encoder, request.frames, request.views])[:4]}"
        there = [SimpleNamespace(bytes=1 << 20)] if request.encoder else []
        existing = SimpleNamespace(records=lambda: there) if there else None
        spec = SimpleNamespace(name=f"{name}-{tokens}", serves=lambda other: other.name[:8] == name)
        return SimpleNamespace(spec=spec, existing=existing, bytes=0 if there else 3 << 20)

    def extract(self, request: ExtractRequest) -> Any:
        self.extracted.append(request)
        return SimpleNamespace(set_name=f"set-{len(self.extracted)}", bad=self.bad, ledger="the ledger")

    def train(self, request: TrainRequest, **_: object) -> dict[str, Any]:
        self.trained.append(request)
        settings = request.changes.settings or []
        name = "blind" if "model.blind=true" in settings else "seeing"
        summary = {"trainable_parameters": 12, "all_parameters": 1200, "seconds": 7.0, "steps": 10, "row_bytes": 2048}
        return {**summary, "run": f"runs/{name}-{digest_json([request.modality, request.feature_set, settings])[:8]}"}

    def score(self, request: ScoreRequest) -> dict[str, Any]:
        assert request.run is not None
        if self.broken and self.broken in request.run:
            raise EpalmError("the scoring broke", hint="mend it")
        self.scored.append(request)
        value = BLIND if "blind" in request.run else SEEING
        names = [name for name in (request.metrics or "").split(",") if name != self.skipped]
        folder = Path(request.run)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "samples.jsonl").open("w") as file:
            for number, of in ((number, of) for number in range(50) for of in ("qa", "caption")):
                right = float((number + sum(map(ord, request.run))) % 50 < 50 * value)
                scores: dict[str, Any] = dict.fromkeys(names, right)
                scores["BLEU counts"] = [right] * 8 + [8, 8]
                line = {"id": f"{of}{number}", "task": of, "media": f"{number}.jpg", "prompt": "", "text": ""}
                file.write(json.dumps(line | {"scores": scores}) + "\n")
        counts = {"scored": 50, "expected": 50, "of": 50, "missing": 0}
        figures = {name: {"value": value, "low": value - 0.1, "high": value + 0.1, **counts} for name in names}
        task = {"metrics": dict.fromkeys(names, value), "figures": figures, "chance": dict.fromkeys(names, 0.2)}
        task["skipped"] = [{"metric": self.skipped, "reason": "Java is missing", "hint": "install it"}]
        about = {"samples": "all", "per_sample": "samples.jsonl"}
        return {"run": folder.name, "split": request.split, "tasks": {"qa": task, "caption": task}, **about}


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


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runner:
    """What is run in place of running it."""
    from epalm.cli.bench import trainings
    from epalm.extract import plan

    runner = Runner()
    monkeypatch.setattr(trainings, "api", runner)
    monkeypatch.setattr(plan, "plan", runner.plan)
    monkeypatch.chdir(tmp_path)
    return runner


def page_for(folder: Path, *names: str) -> Path:
    page = folder / "page.md"
    page.write_text("".join(f"before\n<!-- {name} -->\nold\n<!-- /{name} -->\nafter\n" for name in names))
    return page
