"""What is handed on of a scoring: predictions as an evaluation server takes them, or scores as lm-eval writes its own.

A benchmark says what its results look like; that an id is of another kind, or a sample of the split has no
prediction, is found before anything is decoded: servers refuse such files as a whole.
"""

import json
import re
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import epalm
from epalm.cache.objects.durable import write_atomically
from epalm.datasets.benchmarks import benchmark, benchmark_names, parse_spec
from epalm.errors import UsageError
from epalm.evaluate.metrics.bootstrap import RESAMPLES, standard_error
from epalm.evaluate.metrics.registry import metrics
from epalm.samples import LINKS, Prediction, Sample
from epalm.train.runs.run_folder import writing

LM_EVAL = "lm-eval"
_BY_TASK = ("results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples")


@dataclass(frozen=True)
class Submission:
    """A file to write of a scoring, of the form of that name: a benchmark's results, or "lm-eval"."""

    name: str
    keys: tuple[str, str] = ("", "")  # of an id and its text
    ids: Mapping[str, int | str] = field(default_factory=dict)  # the benchmark's own, by those of samples

    def write(self, path: Path, predictions: Sequence[Prediction], scores: Mapping[str, Any]) -> None:
        """Write the file, in the order of the predictions. Raises EpalmError."""
        results: Any = [
            dict(zip(self.keys, (self.ids[one.id], one.text.strip()), strict=True))
            for one in predictions
            if one.id in self.ids
        ]
        if self.name == LM_EVAL:
            results = lm_eval_results(scores)
        with writing(path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(results).encode())


def plan_submission(name: str, split: Sequence[Sample], predicted: Collection[str]) -> Submission:
    """The file of that form, for the predictions of these ids of a split.

    Raises:
        UsageError: no such form; or the split has no samples of its task, other ids, or too few predictions.
    """
    if name == LM_EVAL:
        return Submission(name)
    form = benchmark(name).results if name in benchmark_names() else None
    if form is None:
        known = [one for one in benchmark_names() if benchmark(one).results]
        raise UsageError(f"--submission {name!r} is of no known form", hint=f"use {', '.join([*known, LM_EVAL])}")
    key, text, kind = form
    asked = [sample.id for sample in split if sample.task is benchmark(name).task]
    if not asked:
        raise UsageError(f"the split has no samples of the task of {name}", hint="--split or --data takes another")
    if wrong := [one for one in asked if not re.fullmatch(r"0|[1-9][0-9]*" if kind is int else "[0-9]+", one)]:
        raise UsageError(
            f"{len(wrong):,} of {len(asked):,} ids are none of {name}, where {key!r} is a number: {wrong[0]!r:.60}",
            hint=f"--data {name}:/root has the benchmark's own; in data of yours, keep them as the samples' ids",
        )
    if lacking := [one for one in asked if one not in predicted]:
        raise UsageError(
            f"{len(lacking):,} of {len(asked):,} samples have no prediction, such as {lacking[0]!r}",
            hint="an evaluation takes a whole split: leave --limit, and extract the features that are missing",
        )
    return Submission(name, (key, text), {one: kind(one) for one in asked})


def lm_eval_results(scores: Mapping[str, Any]) -> dict[str, Any]:
    """`scores.json` as lm-eval and lmms-eval write their results, where a task is data set, split and task.

    Metrics are named as there, such as "exact_match,none". A standard error is what the interval over media comes to,
    "N/A" where there is none. Source: lm_eval/evaluator.py and lm_eval/utils.py, EleutherAI/lm-evaluation-harness.
    """
    spec, split = str(scores["data"]).removeprefix(LINKS), scores["split"]
    data, known, decode = parse_spec(spec), metrics(), scores.get("decode", {})
    written: dict[str, dict[str, Any]] = {name: {} for name in _BY_TASK}
    for task, part in scores["tasks"].items():
        name = f"{data[0].name if data else Path(spec).stem}_{split}_{task}"
        plain = {one: re.sub(r"\W+", "_", one.lower()).strip("_") for one in part["figures"]}
        result: dict[str, Any] = {"alias": name}
        for one, figure in part["figures"].items():
            error = standard_error(figure)
            result |= {f"{plain[one]},none": figure["value"]}
            result |= {f"{plain[one]}_stderr,none": "N/A" if error is None else error}
        higher = {plain[one]: known[one].higher_is_better for one in plain if one in known}
        about = {
            "task": name,
            "dataset_path": spec,
            "test_split": split,
            "output_type": "generate_until",
            "num_fewshot": 0,
            "generation_kwargs": decode,
            "metric_list": [{"metric": one, "higher_is_better": better} for one, better in higher.items()],
            "metadata": {"version": epalm.__version__, "names": plain, "stderr": part["interval"]},
        }
        samples = {"original": part["of"], "effective": part["scored"]}
        values: tuple[Any, ...] = (result, [], about, epalm.__version__, 0, higher, samples)
        for key, value in zip(_BY_TASK, values, strict=True):
            written[key][name] = value
    run = f"run={scores['run']},checkpoint_step={scores.get('checkpoint_step')}"
    config = {"model": "epalm", "model_args": run, "limit": scores["limit"], "bootstrap_iters": RESAMPLES}
    whole = {"config": config | {"gen_kwargs": decode}, "date": time.time(), "model_name": scores["run"]}
    return {**written, **whole, "model_source": "epalm"}
