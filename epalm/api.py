"""epalm in Python: what the commands do, as functions that take requests and return results.

Everything is imported when it is first called, so that `import epalm` costs nothing. The names in `epalm.FRONT` are
reached as `epalm.load`, …; `extract` and `train` are packages of that name, their functions are `epalm.api.extract`, ….
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epalm import DEFAULT_CACHE, DEFAULT_RUNS
from epalm.evaluate.request import PredictRequest, ScoreRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from epalm.cache.feature_set import FeatureSet
    from epalm.errors import MediaError
    from epalm.evaluate.loaded_model import LoadedModel
    from epalm.extract.pipeline import ExtractSummary
    from epalm.extract.request import ExtractRequest
    from epalm.train.lm.processes import Processes
    from epalm.train.request import TrainRequest
    from epalm.train.setup import Setup


def extract(request: "ExtractRequest") -> "ExtractSummary":
    """Encode media into the cache; `epalm.extract.plan.plan` says first what that comes to. Raises EpalmError."""
    from epalm.extract.pipeline import execute
    from epalm.extract.plan import plan

    return execute(plan(request))


def set_up_training(
    request: "TrainRequest", processes: "Processes | None" = None, device: str | None = None, *, planning: bool = False
) -> "Setup":
    """The training that a request comes to, with everything loaded. Raises EpalmError."""
    from epalm.extract.live import recipe_features
    from epalm.train.lm.processes import ALONE
    from epalm.train.material import resolve
    from epalm.train.setup import set_up

    processes, device = processes or ALONE, device or request.device
    material = resolve(request, recipe_features, processes=processes, device=device, planning=planning)
    return set_up(material, processes=processes, device=device)


def train(
    request: "TrainRequest",
    processes: "Processes | None" = None,
    device: str | None = None,
    stop: "Callable[[], bool]" = lambda: False,
) -> dict[str, Any] | None:
    """Train, go on, or find that it is done already: what the run's `summary.json` has, None where `stop` ended it.

    `processes`, of which this is one, train together, each on its `device`. Raises EpalmError.
    """
    from epalm.extract.canary import check_canary
    from epalm.train.run import execute

    return execute(set_up_training(request, processes, device), canary=check_canary, stop=stop)


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


def features(name: str, *, cache: str | Path | None = None) -> "FeatureSet":
    """The feature set of that name, or the only one whose name begins so, in a cache [as of --cache].

    Its `frame()` is a pandas DataFrame of its rows, its `to_dask()` a Dask array; see docs/cache.md. Raises CacheError.
    """
    from epalm.cache.store import Cache

    return Cache(str(cache or os.environ.get("EPALM_CACHE", DEFAULT_CACHE)), read_only=True).find(name)


def runs(folder: str | Path | None = None) -> "pd.DataFrame":
    """The runs in a folder [as of --runs] and one level deeper, one a row, the oldest first.

    Columns: name, path, state (done, running, stopped, imported, damaged), fault, modality, recipe, variant, step,
    steps, val_loss (nats), val_exact, val_samples, val_of, scores; then the value of each headline measure, as "qa
    exact match", and the settings that differ between the runs, as "optim.peak_lr".
    """
    from epalm.train.runs.listing import runs_frame

    return runs_frame(Path(folder or os.environ.get("EPALM_RUNS", DEFAULT_RUNS)))


def scores(
    run: str | Path | None = None, *, split: str | None = None, folder: str | Path | None = None
) -> "pd.DataFrame":
    """The scored samples of a run, one a row; see docs/scores.md.

    `run`: its name in a folder [as of --runs], its path, or a file that `epalm score --predictions` wrote; without one,
    the latest. `split`: without one, that of the last scoring.

    Columns: id, task, medium, digest (of the medium), question, prediction, references, answers, question_type,
    answer_type, and one for each metric: the sample's score, or counts that its value of all samples is made of.

    Raises:
        UsageError: it was not scored, or its files cannot be read.
    """
    from epalm.evaluate.score_files import read_scores

    runs = Path(folder or os.environ.get("EPALM_RUNS", DEFAULT_RUNS))
    return read_scores(None if run is None else str(run), runs, split).frame.reset_index(drop=True)


def score(request: ScoreRequest) -> dict[str, Any]:
    """Decode a split with a trained run and score it; what `scores.json` has of it. Raises EpalmError."""
    from epalm.evaluate.run import execute_score, plan_score

    return execute_score(plan_score(request))


def predict(files: "Sequence[str]", request: PredictRequest | None = None) -> "list[str | MediaError]":
    """What a trained run says about each file, or why that cannot be read. Raises EpalmError."""
    from epalm.evaluate.loaded_model import predict

    return predict(files, request or PredictRequest())[1]
