"""epalm in Python: what the commands do, as functions that take requests and return results.

Everything is imported when it is first called, so that `import epalm` costs nothing. The names in `epalm.FRONT` are
reached as `epalm.load`, …; `extract` and `train` are packages of that name, their functions are `epalm.api.extract`, ….
"""

from pathlib import Path
from typing import TYPE_CHECKING

from epalm import DEFAULT_RUNS

if TYPE_CHECKING:
    import pandas as pd

    from epalm.evaluate.loaded_model import LoadedModel


def load(
    path: str | Path, *, device: str = "auto", lm: str | Path | None = None, weights: str | Path | None = None
) -> "LoadedModel":
    """A trained model from a run folder, or from what `epalm export` wrote; see its `answer` and `caption`.

    `lm` and `weights` say where language model and encoder are now, where not as in training; they are checked.

    Raises:
        UsageError: it is no run, or its language model or encoder is not there or another one by now.
    """
    from epalm.evaluate.loaded_model import LoadedModel
    from epalm.train.runs.run_folder import RunFolder

    folder = RunFolder.find(Path(path).parent, str(path))
    return LoadedModel(folder, device=device, lm=str(lm) if lm else None, weights=str(weights) if weights else None)


def runs(folder: str | Path = DEFAULT_RUNS) -> "pd.DataFrame":
    """The runs in a folder and one level deeper, one a row, the oldest first; see `epalm.train.runs.listing`."""
    from epalm.train.runs.listing import runs_frame

    return runs_frame(Path(folder))
