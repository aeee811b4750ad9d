"""epalm: a frozen language model that sees, watches and listens (eP-ALM, ICCV 2023)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from epalm.cli.loaded_model import LoadedModel

__version__ = "0.2.0"


def load(
    path: "str | Path", *, device: str = "auto", lm: "str | Path | None" = None, weights: "str | Path | None" = None
) -> "LoadedModel":
    """A trained model from a run folder, or from what `epalm export` wrote; see its `answer` and `caption`.

    `lm` and `weights` say where language model and encoder are now, where not as in training; they are checked.

    Raises:
        UsageError: it is no run, or its language model or encoder is not there or another one by now.
    """
    from pathlib import Path

    from epalm.cli.loaded_model import LoadedModel
    from epalm.train.runs.run_folder import RunFolder

    folder = RunFolder.find(Path(path).parent, str(path))
    return LoadedModel(folder, device=device, lm=str(lm) if lm else None, weights=str(weights) if weights else None)
