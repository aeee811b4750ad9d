"""Frozen models' weights: from the Hub by name, from a local folder, or drawn at random when that is asked for.

Only safetensors, or pickles limited to tensors, are read; no code from a repository runs. What the model
libraries raise becomes one message that names what to do.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from epalm.errors import EpalmError, UsageError
from epalm.fingerprint import digest_tensors
from epalm.weight_files import require_whole

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Source:
    """Where weights come from: a Hub name or a folder (None: the default), or a random draw.

    `option` is the setting that named it, for messages.
    """

    name: str | None
    random: bool = False
    seed: int = 0
    option: str = "--weights"

    @property
    def folder(self) -> Path | None:
        """The local folder, where `name` is one."""
        path = Path(self.name) if self.name else None
        return path.resolve() if path and path.is_dir() else None

    def require_loadable(self, what: str) -> None:
        """Say early that a name which looks like a path leads nowhere. Raises UsageError."""
        if self.name is None or self.folder is not None:
            return
        if Path(self.name).exists() or self.name.startswith((".", "/", "~")) or self.name.count("/") > 1:
            raise UsageError(
                f"{self.option} {self.name!r}, for the {what}, is not a folder",
                hint="give a folder with config.json and model.safetensors, or a Hub name",
            )


def load(source: Source, what: str, build: Callable[[], Loaded]) -> Loaded:
    """`build()`, whose faults become one message.

    Raises:
        UsageError: the weights are not there, not whole, not reachable, or of another architecture.
    """
    source.require_loadable(what)
    if source.folder and not source.random:
        require_whole(source.folder, what)
    try:
        with _quiet():
            return build()
    except EpalmError:
        raise
    except Exception as error:  # of a dozen libraries, whose own are children of this class alone
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if source.folder:
            message = f"{source.folder} holds no weights for the {what}: {first}"
            hint = "the folder needs config.json and model.safetensors of that architecture"
        else:
            message = f"cannot load the {what}'s weights {source.name!r}: {first}"
            hint = f"with no network: download the model elsewhere, then name its folder in {source.option}"
            if source.option == "--weights":
                hint += "; --random-weights tries the pipeline without"
        raise UsageError(message, hint=hint) from error


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Only what is on this machine already is loaded: the Hub is not asked."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def seeded(source: Source) -> Iterator[None]:
    """Random initialisation depends on the seed alone, and nobody else's random numbers on it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(source.seed)
        yield


def from_pretrained(
    model_class: Any,
    source: Source,
    what: str,
    config: Any = None,
    dtype: torch.dtype = torch.float32,
    quantization: Any = None,
) -> nn.Module:
    """A transformers model with `source`'s weights; `quantization` is one of transformers' configurations of it.

    Raises:
        UsageError: see `load`; also when the checkpoint leaves part of the model without weights.
    """

    def build() -> nn.Module:
        model, report = model_class.from_pretrained(
            str(source.folder or source.name),
            config=config,
            dtype=dtype,
            trust_remote_code=False,
            output_loading_info=True,
            **({} if quantization is None else {"quantization_config": quantization}),
        )
        absent = sorted(report["missing_keys"])
        if absent:
            raise ValueError(f"it lacks {len(absent)} tensors of the model, among them {absent[0]}")
        return model  # type: ignore[no-any-return]

    return load(source, what, build)


def freeze(model: nn.Module) -> str:
    """Make the model ready to encode, in float32; returns the digest of its tensors."""
    model.float().eval().requires_grad_(False)
    return digest_tensors(model.state_dict())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No log lines and bars from the libraries while they try: what matters is in the error."""
    from transformers.utils import logging as bars

    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "transformers", "timm")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    bars.disable_progress_bar()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
