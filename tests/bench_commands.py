"""In place of the commands that `epalm bench` runs: one that only prints what they print, or counts and stops."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from epalm.errors import EpalmError
from epalm.fingerprint import digest_json

SEEING, BLIND = 0.9, 0.3
NAMES = ("exact match", "VQA soft accuracy", "CIDEr", "BLEU-4")


class Runner:
    """Runs nothing: prints what a command prints; `broken` says which fails."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []
        self.broken = ""

    def __call__(self, words: Sequence[str], log: Path, **_: object) -> dict[str, Any]:
        if self.broken and self.broken in " ".join(words):
            raise EpalmError(f"`{' '.join(words)}` ended with exit code 1")
        self.ran.append(tuple(words))
        log.parent.mkdir(parents=True, exist_ok=True)
        return self._said(tuple(words))

    def _said(self, words: tuple[str, ...]) -> dict[str, Any]:
        options = dict(pairwise(words))
        if words[0] == "extract":
            return {"set_name": f"set-{len(self.ran)}"}
        if words[0] == "train":
            name = "blind" if "model.blind=true" in words else "seeing"
            summary = {"trainable_parameters": 12, "all_parameters": 1200, "seconds": 7.0, "steps": 10}
            return {**summary, "run": f"runs/{name}-{digest_json(words)[:8]}"}
        value = BLIND if "blind" in options["--run"] else SEEING
        counts = {"scored": 50, "expected": 50, "of": 50, "missing": 0}
        figures = {name: {"value": value, "low": value - 0.1, "high": value + 0.1, **counts} for name in NAMES}
        task = {"metrics": dict.fromkeys(NAMES, value), "figures": figures, "chance": dict.fromkeys(NAMES, 0.2)}
        return {"run": Path(options["--run"]).name, "split": options["--split"], "tasks": {"qa": task, "caption": task}}

    def of(self, stage: str) -> list[tuple[str, ...]]:
        """The commands of a stage that were run."""
        return [words for words in self.ran if words[0] == stage]


class Stopping:
    """Runs the commands; before the command number `stop` comes Ctrl-C."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self.run, self.count, self.stop = run, 0, -1

    def __call__(self, *words: Any, **options: Any) -> Any:
        if self.count == self.stop:
            raise KeyboardInterrupt
        self.count += 1
        return self.run(*words, **options)
