"""In place of the processes of `epalm ablate`: commands that only leave what they leave, or that run in this one."""

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from epalm.cli.side_by_side import Command
from epalm.errors import EpalmError
from epalm.fingerprint import digest_json
from tests.conftest import Epalm

SEEING, BLIND = 0.9, 0.3
NAMES = ("exact match", "VQA soft accuracy", "CIDEr", "BLEU-4")


class Runner:
    """Runs nothing: every command leaves what it leaves, and `broken` says which fails."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, ...]] = []
        self.broken = ""

    def __call__(self, _title: str, chains: Sequence[Iterable[Command]], **_: object) -> None:
        for command in (command for chain in chains for command in chain):
            if self.broken and self.broken in str(command):
                raise EpalmError(f"`{command}` ended with exit code 1")
            self.ran.append(command.words)
            assert command.out is not None
            command.out.parent.mkdir(parents=True, exist_ok=True)
            command.out.write_text(json.dumps(self._said(command.words)))

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
        return [words for words in self.ran if words[0] == stage]


class InProcess:
    """The commands themselves, in this process, which has started; before the command number `stop` comes Ctrl-C."""

    def __init__(self, epalm: Epalm) -> None:
        self.epalm, self.count, self.stop = epalm, 0, -1

    def __call__(self, _title: str, chains: Sequence[Iterable[Command]], **_: object) -> None:
        for command in (command for chain in chains for command in chain):
            if self.count == self.stop:
                raise KeyboardInterrupt
            self.count += 1
            ended = self.epalm(*command.words)
            assert ended.code == 0, ended.err
            assert command.out is not None
            command.out.parent.mkdir(parents=True, exist_ok=True)
            command.out.write_text(ended.out)
