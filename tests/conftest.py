"""What several tests share: the command line run in this process, and a small piece of the playground."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from epalm.playground.generate import generate_playground
from epalm.samples import Modality

# One thread a process: the models here are tiny, and several test processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@dataclass(frozen=True)
class Done:
    """What a command printed and returned."""

    code: int
    out: str
    err: str


Epalm = Callable[..., Done]


@pytest.fixture
def epalm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Epalm:
    """Run `epalm` with these words in this process, faults turned into messages as the installed command does."""
    from epalm.__main__ import main

    def run(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["epalm", *(str(word) for word in words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[Modality, Path]:
    """A few dozen media of each modality with their samples."""
    root = tmp_path_factory.mktemp("worlds")
    return {modality: generate_playground(root / modality, modality, counts=(24, 6, 8)) for modality in Modality}
