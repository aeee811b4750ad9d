"""SPICE 1.0 by the jar that pycocoevalcap ships, where its parser's models are there and Java is old enough.

Source: Anderson et al., SPICE, ECCV 2016. The library fetches the models on first use; here nothing is fetched: a
machine without them is told how to get them.
"""

import json
import math
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from epalm.evaluate.metrics.java import MetricError, find_java, last_line
from epalm.evaluate.metrics.tokenizer import Tokens

JAR = "spice-1.0.jar"
MODELS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
FETCH = (
    "python -c 'from pycocoevalcap.spice.get_stanford_models import get_stanford_models as get; get()' "
    "downloads them (0.4 GB)"
)
NEWEST_JAVA = 15  # from 16 on (JEP 396) the JDK's insides are closed, which the jar's serialisation reads
_MEMORY = "-Xmx8G"


def require_spice() -> Path:
    """The folder of the jar.

    Raises:
        MetricError: no models, no Java, or one too new.
    """
    folder, java = _folder(), find_java()
    reasons, hints = [], []
    absent = [name for name in MODELS if not (folder / "lib" / name).is_file()]
    if absent:
        reasons.append(f"SPICE's parser is not there ({', '.join(absent)})")
        hints.append(FETCH)
    if java.major > NEWEST_JAVA:
        reasons.append(f"SPICE needs Java 8 to {NEWEST_JAVA}, and this is {java} ({java.path})")
        hints.append("put an older one first: PATH=/usr/lib/jvm/java-11-openjdk-amd64/bin:$PATH epalm score")
    if reasons:
        raise MetricError("; ".join(reasons), hint="; ".join(hints))
    return folder


def spice(predictions: Tokens, references: Tokens) -> tuple[float, list[float]]:
    """The corpus' score and each caption's, in the order of `predictions`.

    Raises:
        MetricError: as `require_spice`, or SPICE failed.
    """
    folder, java = require_spice(), find_java()
    asked = [{"image_id": key, "test": some[0], "refs": references[key]} for key, some in predictions.items()]
    with tempfile.TemporaryDirectory(prefix="epalm-spice-") as place:
        given, result = Path(place) / "captions.json", Path(place) / "scores.json"
        given.write_text(json.dumps(asked))
        words = [str(java.path), _MEMORY, "-jar", JAR, str(given), "-out", str(result), "-subset", "-silent"]
        try:
            done = subprocess.run(words, cwd=folder, capture_output=True, check=False)
            told: list[Any] = json.loads(result.read_bytes()) if done.returncode == 0 else []
        except (OSError, ValueError) as error:
            raise MetricError(f"SPICE failed in {java}: {error}", hint="java -version") from error
    scores = {item["image_id"]: item["scores"]["All"]["f"] for item in told}
    if done.returncode or scores.keys() != predictions.keys():
        said = last_line(done.stderr.decode(errors="replace"))
        raise MetricError(f"SPICE failed in {java}: {said}", hint="java -version")
    values = [float("nan") if scores[key] is None else float(scores[key]) for key in predictions]
    if bad := sum(not math.isfinite(value) for value in values):
        raise MetricError(f"SPICE gave no number for {bad} of {len(values)} captions", hint=None)
    return math.fsum(values) / len(values), values


def _folder() -> Path:
    import pycocoevalcap.spice

    return Path(pycocoevalcap.spice.__file__).parent
