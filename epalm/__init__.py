"""epalm: a frozen language model that sees, watches and listens (eP-ALM, ICCV 2023)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epalm.api import features as features
    from epalm.api import load as load
    from epalm.api import predict as predict
    from epalm.api import runs as runs
    from epalm.api import score as score
    from epalm.api import scores as scores

__version__ = "0.2.0"
DEFAULT_CACHE = ".epalm/cache"
DEFAULT_RUNS = ".epalm/runs"
PLAYGROUND = "playground"  # what the built-in world, its models and its recipe are called
FRONT = ("features", "load", "predict", "runs", "score", "scores")  # of `epalm.api`, imported with the first use


def __getattr__(name: str) -> Any:
    if name not in FRONT:
        raise AttributeError(f"module 'epalm' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("epalm.api"), name)
