"""Caption scores through pycocoevalcap: BLEU-1…4, METEOR, ROUGE-L, CIDEr, after PTB tokenisation.

One JVM tokenises everything, one computes METEOR. Values are fractions, as pycocoevalcap gives them (CIDEr: 0 … 10).
"""

import contextlib
import io
from collections.abc import Mapping, Sequence

from epalm.errors import EpalmError
from epalm.evaluate.java import java_on_path

BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
METRICS = (*BLEU, "METEOR", "ROUGE-L", "CIDEr")
Tokens = dict[str, list[str]]  # id → tokenised sentences


def tokenise(sentences: Mapping[str, Sequence[str]]) -> Tokens:
    """Each sentence as the Stanford PTB tokenizer splits it, lower case, without punctuation.

    Raises:
        EpalmError: Java failed.
    """
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    rows = {key: [{"caption": " ".join(one.split())} for one in some] for key, some in sentences.items()}
    with java_on_path() as java:
        try:
            result: Tokens = PTBTokenizer().tokenize(rows)
        except OSError as error:
            raise EpalmError(f"the PTB tokenizer cannot run with {java}: {error}", hint="java -version") from error
    if sum(map(len, result.values())) != sum(map(len, rows.values())):
        raise EpalmError(f"the PTB tokenizer ended early with {java}", hint="java -version")
    return result


def caption_scores(predictions: Tokens, references: Tokens, metrics: Sequence[str] = METRICS) -> dict[str, float]:
    """Metric → value for tokenised captions, one per id, against tokenised references.

    Raises:
        EpalmError: Java failed.
    """
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    scores: dict[str, float] = {}
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints lengths as it goes
        if any(name in BLEU for name in metrics):
            scores |= dict(zip(BLEU, Bleu(4).compute_score(references, predictions)[0], strict=True))
        if "METEOR" in metrics:
            scores["METEOR"] = _meteor(predictions, references)
        if "ROUGE-L" in metrics:
            scores["ROUGE-L"] = float(Rouge().compute_score(references, predictions)[0])
        if "CIDEr" in metrics:
            scores["CIDEr"] = float(Cider().compute_score(references, predictions)[0])
    return {name: float(scores[name]) for name in metrics}


def _meteor(predictions: Tokens, references: Tokens) -> float:
    from pycocoevalcap.meteor.meteor import Meteor

    with java_on_path() as java:
        try:
            return float(Meteor().compute_score(references, predictions)[0])
        except (OSError, ValueError) as error:
            raise EpalmError(f"METEOR cannot run with {java}: {error}", hint="java -version") from error
