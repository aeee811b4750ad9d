"""What several tests share: the command line run in this process, and a small piece of the playground."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from epalm.playground.generate import generate_playground
from epalm.samples import Modality
from tests.bench_commands import commands  # noqa: F401 (fixture)
from tests.browser import browser, open_page  # noqa: F401 (fixtures)
from tests.hub_emulator import hub  # noqa: F401 (fixture)
from tests.report_runs import scored_runs  # noqa: F401 (fixture)
from tests.s3_emulator import faulty_network, no_aws, s3_server, s3_url  # noqa: F401 (fixtures)

if TYPE_CHECKING:
    from tests.dask_workers import Workers
    from tests.trials import Trial

# No test asserts a time, hypothesis' included: machines that run them are shared and uneven.
settings.register_profile("epalm", deadline=None)
settings.load_profile("epalm")

# One thread a process: the models here are tiny, and several test processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell starts what it puts into the background deaf to Ctrl-C, and so would be the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
        monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it, and tables would be as narrow
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
def extracted_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pictures, a tiny ViT and a cache that holds their rows: see `trials`."""
    from tests.trials import make_trial

    root = tmp_path_factory.mktemp("extracted") / "trial"
    make_trial(root, Modality.IMAGE)
    return root


@pytest.fixture
def trial(extracted_pictures: Path, tmp_path: Path, epalm: Epalm, monkeypatch: pytest.MonkeyPatch) -> "Trial":
    """A copy of these in an empty folder, which is the working one; some test files have a trial of their own."""
    from tests.trials import Trial

    monkeypatch.chdir(tmp_path)
    shutil.copytree(extracted_pictures, tmp_path / "trial")
    return Trial(epalm, Modality.IMAGE, tmp_path / "trial")


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[Modality, Path]:
    """A few dozen media of each modality with their samples."""
    root = tmp_path_factory.mktemp("worlds")
    return {modality: generate_playground(root / modality, modality, counts=(24, 6, 8)) for modality in Modality}


def save_small_vit(folder: Path, *, depth: int) -> Path:
    """A random ViT of 16×16 pixels and width 24, in the form in which timm saves one."""
    import timm
    import torch
    from safetensors.torch import save_file

    architecture = "vit_tiny_patch16_224"
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 24, "depth": depth, "num_heads": 2}
    pixels = {"input_size": [3, 16, 16], "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3}
    config = {"architecture": architecture, "num_classes": 0, "model_args": sizes, "pretrained_cfg": pixels}
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    save_file(timm.create_model(architecture, num_classes=0, **sizes).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def small_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights that load in no time."""
    return save_small_vit(tmp_path_factory.mktemp("vit"), depth=3)


@pytest.fixture(scope="session")
def dask_workers() -> "Iterator[Workers]":
    """One Dask cluster for all tests of a process; tests may kill its workers."""
    from tests.dask_workers import two_workers

    with two_workers() as workers:
        yield workers
