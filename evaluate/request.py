"""What is asked of a trained run: every option of `epalm score` and `epalm predict`, documented beside its field.

Imports nothing heavy. Fields without `option` are shared by several commands, which document them together.
"""

from dataclasses import dataclass, field
from pathlib import Path

from epalm import DEFAULT_CACHE, DEFAULT_RUNS
from epalm.evaluate.decoding.options import DecodeChoice
from epalm.evaluate.metrics.registry import metric_names
from epalm.request_fields import option
from epalm.samples import Modality


@dataclass(frozen=True)
class ScoreRequest:
    """A run and the samples to score it on, or a file of anybody's predictions."""

    run: str | None = option("A run's name or folder. [default: the latest]", None)
    data: str | None = None  # None: that of training
    follow_links: bool = False  # links below the data's folder may lead out of it
    modality: Modality | None = option("Which media to work on. [default: those of training]", None, short="-m")
    feature_set: str | None = option(
        "Feature set of the cache, such as of the same encoder on videos, for a run trained on pictures. "
        "[default: that of training]",
        None,
    )
    split: str = option("Split to decode and score.", "test")
    decode: DecodeChoice = field(default_factory=DecodeChoice)
    batch_size: str = option(
        "Samples decoded together. auto: 64 on a CPU; on a GPU from 512 on, halved until its memory holds them.",
        "auto",
        metavar="N|auto",
    )
    limit: int | None = option("Only the split's first N samples.", None, minimum=1)
    checkpoint: str = "best"  # or latest
    allow_missing: int = option("Go on without up to this many media.", 0, minimum=0)
    metrics: str | None = option(
        f"Metrics, separated by commas: {', '.join(metric_names())}, or bleu for all BLEU. [default: all that can run]",
        None,
    )
    predictions: Path | None = option(
        "Score these instead of a run's: ids and texts as JSON lines, JSON or a table, or results in "
        "the form of VQA, GQA, COCO captions or LLaVA. Needs --data, and neither a model nor features.",
        None,
    )
    out: Path | None = option("With --predictions: file for the scores. [default: beside them]", None, writable=True)
    submission: str | None = option(
        "Also write a file to hand on: the predictions as the evaluation of vqa-v2, ok-vqa, gqa or coco-caption takes "
        "them, or with lm-eval the scores as lm-eval and lmms-eval write theirs.",
        None,
        metavar="FORM",
    )
    force: bool = option("Replace the file even if epalm did not write it; never an input.", False)
    cache: str = DEFAULT_CACHE  # a folder, or a URL such as s3://bucket/cache
    runs: Path = Path(DEFAULT_RUNS)  # folder of the run folders
    lm: str | None = None  # where the language model is now, where not as in training
    weights: str | None = None  # where the encoder is now, where not as in training
    device: str = "auto"  # auto, cpu, cuda, cuda:N or mps
    processes: int = option(
        "Decoding processes of this machine, a GPU each.", 1, minimum=1, maximum=256, panel="Machine"
    )
    engine: str = "local"  # who decodes: local (this machine) or dask
    scheduler: str | None = None  # of Dask workers; None: they are started on this machine
    dask_workers: int = 2  # to start on this machine


@dataclass(frozen=True)
class PredictRequest:
    """A run, and what it is asked about each of some files."""

    question: str | None = option("What to ask; every argument is a file then.", None, short="-q")  # None: captions
    run: str | None = option("A run's name or folder. [default: the latest of the files' modality]", None)
    modality: Modality | None = None  # None: that of the files, by their names
    decode: DecodeChoice = field(default_factory=DecodeChoice)
    runs: Path = Path(DEFAULT_RUNS)  # folder of the run folders
    lm: str | None = None  # where the language model is now, where not as in training
    weights: str | None = None  # where the encoder is now, where not as in training
    device: str = "auto"  # auto, cpu, cuda, cuda:N or mps
