"""Which runs use which feature sets: told by run folders, and by the marks that runs leave with a set."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from epalm.errors import UsageError

if TYPE_CHECKING:
    from epalm.cache.feature_set import FeatureSet

Runs = dict[str, list[str]]  # feature set → folders of runs, absolute


def runs_below(folders: Sequence[Path], *, strict: bool = False) -> Runs:
    """The runs in these folders and one level deeper, as the demo puts them; folders that are not there hold none.

    Raises:
        UsageError: with `strict`, a run does not say what it was trained on.
    """
    found: Runs = {}
    for folder in folders:
        for path in sorted([*folder.glob("*/inputs.json"), *folder.glob("*/*/inputs.json")]):
            try:
                features = json.loads(path.read_text(encoding="utf-8"))["features"]
                name = features.get("set")  # none where the encoder was in the loop
            except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                if strict:
                    raise UsageError(
                        f"{path} cannot be read, so it is not known which feature set the run uses: {error}",
                        hint="mend it, or move the run folder away",
                    ) from error
                continue
            if isinstance(name, str):
                found.setdefault(name, []).append(str(path.parent.resolve()))
    return found


def users_of(features: "FeatureSet", runs: Runs) -> list[str]:
    """The runs that use a set: those in `runs`, and those that have marked it, with their machine where it is another.

    A marked run on this machine whose folder is gone is none any more.
    """
    import socket

    from epalm.cache.care.uses import uses

    here = socket.gethostname()
    marks = [use for use in uses(features.objects) if use.host != here or Path(use.run).exists()]
    marked = [use.run if use.host == here else f"{use.host}:{use.run}" for use in marks]
    return list(dict.fromkeys([*runs.get(features.name, []), *marked]))
