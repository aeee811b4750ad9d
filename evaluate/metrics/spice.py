"""SPICE 1.0 by the jar that pycocoevalcap ships, and SPIDEr.

The jar needs its parser's models and a Java that is old enough. The library fetches the models on first use; here
nothing is fetched: a message says how to get them.
"""

import json
import tempfile
from pathlib import Path

import numpy as np

from epalm.errors import MetricError
from epalm.evaluate.metrics.cider import Cider
from epalm.evaluate.metrics.java import find_java, run_java
from epalm.evaluate.metrics.metric import Inputs, Metric
from epalm.samples import Task

JAR = "spice-1.0.jar"
MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
FETCH = (
    "python -c 'from pycocoevalcap.spice.get_stanford_models import get_stanford_models as get; get()' "
    "downloads them (0.4 GB)"
)
NEWEST_JAVA = 15  # from 16 on (JEP 396) the JDK's insides are closed, which the jar's serialisation reads


def require_spice() -> Path:
    """The folder of the jar. Raises MetricError: no models, no Java, or one too new."""
    folder, java = _folder(), find_java()
    faults = {}  # → what to do
    if absent := [name for name in MODELS if not (folder / "lib" / name).is_file()]:
        faults[f"SPICE's parser is not there ({', '.join(absent)})"] = FETCH
    if java.major > NEWEST_JAVA:
        faults[f"SPICE needs Java 8 to {NEWEST_JAVA}, and this is {java} ({java.path})"] = (
            "put an older one first: PATH=/usr/lib/jvm/java-11-openjdk-amd64/bin:$PATH epalm score"
        )
    if faults:
        raise MetricError("; ".join(faults), hint="; ".join(faults.values()))
    return folder


class Spice(Metric):
    """Source: Anderson et al., SPICE, ECCV 2016."""

    name, task, library = "SPICE", Task.CAPTION, "pycocoevalcap"
    summary = "F-measure of scene graphs"
    needs, beside, chance = f"Java 8 to {NEWEST_JAVA}, a parser", True, False

    def backend(self) -> str:
        """The jar's version, and Java's."""
        return f"SPICE 1.0 of {super().backend()}, {find_java()}"

    def statistics(self, inputs: Inputs) -> np.ndarray:
        """Each caption's score (N,), NaN where the jar has none."""
        predictions, references = inputs.tokens()
        folder = require_spice()
        asked = [{"image_id": key, "test": some[0], "refs": references[key]} for key, some in predictions.items()]
        with tempfile.TemporaryDirectory(prefix="epalm-spice-") as place:
            given, result = Path(place) / "captions.json", Path(place) / "scores.json"
            given.write_text(json.dumps(asked))
            run_java("SPICE", ["-Xmx8G", "-jar", JAR, given, "-out", result, "-subset", "-silent"], folder=folder)
            try:
                scores = {one["image_id"]: one["scores"]["All"]["f"] for one in json.loads(result.read_bytes())}
            except (OSError, ValueError) as error:
                raise MetricError(f"SPICE gave no scores: {error}", hint="java -version") from error
        return np.array([scores.get(key) for key in predictions], dtype=np.float64)


class Spider(Spice):
    """Source: Liu et al., Improved Image Captioning via Policy Gradient Optimization of SPIDEr, ICCV 2017."""

    name, highest = "SPIDEr", 5.5
    summary = "the mean of SPICE and CIDEr"

    def statistics(self, inputs: Inputs) -> np.ndarray:
        """Each caption's score (N,)."""
        both: np.ndarray = inputs.statistics(SPICE) + inputs.statistics(Cider())
        return both[:, 0] / 2


SPICE = Spice()
METRICS = (SPICE, Spider())


def _folder() -> Path:
    import pycocoevalcap.spice

    return Path(pycocoevalcap.spice.__file__).parent
