"""Scores of 5,000 predictions: time against the minute that is allowed, and memory against a quarter as many.

SPICE is left out: its parser takes many minutes whatever calls it. Every measurement is a process of its own, which
starts the tokenizer and METEOR as `epalm score` does.
"""

import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.report import Line, compare
from benchmarks.timing import Timing, peak_mib
from epalm.evaluate.metrics.registry import metric_names
from epalm.evaluate.scoring import score_predictions
from epalm.samples import Modality, Prediction, Sample, Task

_COUNT, _QUICK, _ALLOWED = 5_000, 40, 60.0  # predictions; seconds for the first
_METRICS = tuple(name for name in metric_names() if name not in ("SPICE", "SPIDEr"))
_WORDS = [f"word{n}" for n in range(4000)]
_RAW, _REFERENCES, _LENGTH = 10, 5, 11  # VQA's answers, COCO's captions, and their words


def run(root: Path, *, quick: bool) -> list[Line]:
    """Answers and captions against what is allowed, and the memory of captions."""
    lines = []
    for task in Task:
        whole, part = (_in_a_process(task, count, quick) for count in (_COUNT, _COUNT // 4))
        share = (_QUICK / _COUNT) if quick else 1.0
        seconds, allowed = Timing("measured", (whole["seconds"],)), Timing("allowed", (share * _ALLOWED,))
        note = f"{whole['seconds']:.1f} s, {whole['processor']:.1f} s of processor; {whole['count']:,} predictions"
        lines.append(compare(f"scores of {task} / allowed", seconds, allowed, note))
        peaks = [Timing(name, (one["peak"],)) for name, one in (("whole", whole), ("part", part))]
        note = f"{whole['peak']:,.0f} and {part['peak']:,.0f} MiB for {whole['count']:,} and {part['count']:,}"
        lines.append(compare(f"peak memory, {task}: all / a quarter", *peaks, note))
    return lines


def _in_a_process(task: Task, count: int, quick: bool) -> dict[str, float]:
    count = count * _QUICK // _COUNT if quick else count
    metrics = [name for name in _METRICS if name != "METEOR"] if quick else _METRICS
    words = [sys.executable, "-m", "benchmarks.scores", task, str(count), *metrics]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _texts(rng: random.Random, count: int) -> tuple[str, ...]:
    # Words as unevenly common as in a language: the logarithm of their rank is even.
    return tuple(" ".join(_WORDS[int(4000 ** rng.random()) - 1] for _ in range(_LENGTH)) for _ in range(count))


def _world(task: Task, count: int) -> tuple[list[Sample], list[Prediction]]:
    rng, samples, predictions = random.Random(0), [], []
    for number in range(count):
        if task is Task.QA:
            raw = tuple(rng.choices(("yes", "no", "2", "a red dog", "blue"), k=_RAW))
            answers = {answer: raw.count(answer) / _RAW for answer in raw}
            kind = f"what {number % 65}"  # as many question types as VQA v2 has
            sample = Sample(
                str(number), Modality.IMAGE, "x", task, "test", "what is it?", answers, raw, question_type=kind
            )
            predicted = rng.choice(raw)
        else:
            references = _texts(rng, _REFERENCES)
            sample = Sample(str(number), Modality.IMAGE, "x", task, "test", references=references)
            predicted = rng.choice((references[0], *_texts(rng, 1)))
        samples.append(sample)
        predictions.append(Prediction(sample.id, predicted))
    return samples, predictions


def _measure(task: Task, count: int, metrics: tuple[str, ...]) -> dict[str, float]:
    samples, predictions = _world(task, count)
    started, before = time.perf_counter(), _processor()
    scores = score_predictions(samples, predictions, metrics=metrics)
    seconds = time.perf_counter() - started
    skipped = scores.tasks[task.value]["skipped"]
    if skipped:
        raise RuntimeError(f"{skipped} were not measured")
    return {"seconds": seconds, "processor": _processor() - before, "peak": peak_mib(), "count": count}


def _processor() -> float:
    """Seconds of processor time of this process and of the Java that it ran."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    print(json.dumps(_measure(Task(sys.argv[1]), int(sys.argv[2]), tuple(sys.argv[3:]))))
