"""Which runs use which feature sets: read off run folders, and off the marks that runs leave with a set."""

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from epalm.train.runs.listing import runs_of_sets as runs_below

if TYPE_CHECKING:
    from epalm.cache.feature_set import FeatureSet

__all__ = ["runs_below", "users_of"]
Runs = Mapping[str, Sequence[str]]  # feature set → folders of runs, absolute


def users_of(features: "FeatureSet", runs: Runs) -> list[str]:
    """The runs that use a set: those in `runs`, and those that have marked it, with their machine where it is another.

    A marked run on this machine whose folder is gone is none any more.
    """
    from epalm.cache.store import uses

    here = socket.gethostname()
    marks = [use for use in uses(features.objects) if use.host != here or Path(use.run).exists()]
    marked = [use.run if use.host == here else f"{use.host}:{use.run}" for use in marks]
    return list(dict.fromkeys([*runs.get(features.name, []), *marked]))
