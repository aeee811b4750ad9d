"""`python -m benchmarks.real_lm FOLDER`: the method on a real language model, SmolLM2-135M, and the page about it.

FOLDER holds the model's GGUF file; docs/real-lm.md says where it comes from. On the playground, each modality is
trained and scored, *blind* beside it, image with the other rows of the grid `levels-smollm2` too; the plain model
answers the same questions from text alone. All goes through what users have; what is done is not done again.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.marks import markdown, replace_marked
from epalm import PLAYGROUND, api
from epalm.cli.bench.planning import Planned, plan_grid
from epalm.cli.bench.table import make_table
from epalm.cli.bench.trainings import BenchRequest, Outcome, Training, run_trainings
from epalm.console import time_in_words
from epalm.datasets import load_dataset
from epalm.evaluate.given import score_given
from epalm.evaluate.request import ScoreRequest
from epalm.figures import hundred, interval_in_words
from epalm.grids import load_grid
from epalm.samples import Modality, Sample, Task
from epalm.train.lm.load import lm_source

GRID = "levels-smollm2"
HEADLINE = {Task.QA: "exact match", Task.CAPTION: "CIDEr"}
_EXAMPLES = 16  # solved questions, or captions, of the training split that the plain model is given
_STEPS = {Modality.AUDIO: 1080}  # of a training, found by trial [the recipe's]: sounds take longer to learn
_ANSWERS = 3  # sample answers of each modality on the page
_Result = TypeVar("_Result")


def main() -> None:
    """Do what is not done yet, then print the page's part, or write it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_lm", description=__doc__)
    parser.add_argument("lm", metavar="FOLDER", help="folder with the GGUF file, or a Hub name")
    parser.add_argument("--work", type=Path, default=Path(".epalm/real-lm"), help="folder of cache, runs and times")
    parser.add_argument("--processes", type=int, default=1, help="trainings at a time, which share the cores")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--write", type=Path, help="Markdown file with the lines <!-- real-lm --> and <!-- /real-lm -->"
    )
    arguments = parser.parse_args()
    work: Path = arguments.work
    settings = [f"lm.name={json.dumps(arguments.lm)}", *arguments.settings]
    grid = load_grid(GRID)
    bench = BenchRequest(
        recipe=grid.recipe,
        settings=settings,
        cache=str(work / "cache"),
        runs=work / "runs",
        processes=arguments.processes,
    )
    pairs: Planned = {}
    levels = plan_grid(grid, bench)
    for modality in Modality:
        sides = grid.model_copy(update={"rows": (grid.rows[0], grid.rows[-1]), "modalities": (modality,)})
        steps = [f"optim.max_steps={_STEPS[modality]}"] if modality in _STEPS else []
        pairs |= plan_grid(sides, replace(bench, settings=[*steps, *settings]))
    metrics = tuple(one.name for one in grid.measures)
    trainings = dict.fromkeys(chain(*pairs.values(), *levels.values()), metrics)
    outcomes = timed(work, "trainings", lambda: run_trainings(trainings, bench))
    text_only = {
        modality: timed(work, f"text-only-{modality}", lambda: score_text_only(arguments.lm, modality, work))  # noqa: B023
        for modality in Modality
    }
    seeing, blind = ({m: outcomes[pairs[number, m][0]] for m in Modality} for number in (0, 1))
    table = make_table(grid, bench, levels, outcomes)
    part = "\n\n".join([
        _about(work, outcomes, arguments.processes),
        _sides_table(seeing, blind, text_only),
        markdown(table),
        _sample_table(seeing, blind, work),
    ])  # fmt: skip
    if arguments.write:
        replace_marked(arguments.write, "real-lm", part)
    print(part)


def timed(work: Path, label: str, do: Callable[[], _Result]) -> _Result:
    """What `do` gives; the seconds until it is done for the first time are kept, over all interruptions."""
    path, began, done = work / "times.json", time.monotonic(), False
    times = json.loads(path.read_text()) if path.is_file() else {}
    before = times.get(label, {"seconds": 0.0, "done": False})
    try:
        result = do()
        done = True
    finally:
        if not before["done"]:
            times[label] = {"seconds": before["seconds"] + time.monotonic() - began, "done": done}
            work.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(times, indent=2) + "\n")
    return result


def score_text_only(lm: str, modality: Modality, work: Path) -> dict[str, Any]:
    """Scores of the plain model, which sees solved questions of the training split, or captions, and nothing else."""
    path = work / f"text-only-{modality}.jsonl"
    data = load_dataset(PLAYGROUND, modality)
    if not path.is_file():
        answers = answer_from_text(lm, data.split("train"), data.split("test"))
        path.write_text("".join(f"{json.dumps({'id': name, 'text': text})}\n" for name, text in answers.items()))
    request = ScoreRequest(data=PLAYGROUND, modality=modality, predictions=path, metrics=",".join(HEADLINE.values()))
    return score_given(request, path.with_suffix(".scores.json"))


@torch.inference_mode()
def answer_from_text(lm: str, training: Sequence[Sample], test: Sequence[Sample]) -> dict[str, str]:
    """The plain model's answer to each test sample, by id: what it writes behind the examples, up to a new line."""
    location = lm_source(lm).location()
    tokenizer = AutoTokenizer.from_pretrained(**location, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(**location, trust_remote_code=False, dtype=torch.float32).eval()
    examples: dict[Task, str] = {}
    for task in Task:
        some = [one for one in training if one.task is task]
        some = some[:: max(1, len(some) // _EXAMPLES)][:_EXAMPLES]
        examples[task] = "".join(f"{_asked(one)} {next(iter(one.answers or one.references))}\n" for one in some)
    known: dict[str, str] = {}
    for sample in test:
        text = examples[sample.task] + _asked(sample)
        if text not in known:
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            more = model.generate(ids, max_new_tokens=30, do_sample=False, attention_mask=torch.ones_like(ids))
            known[text] = tokenizer.decode(more[0, ids.shape[1] :]).strip().partition("\n")[0].strip()
    return {sample.id: known[examples[sample.task] + _asked(sample)] for sample in test}


def _asked(sample: Sample) -> str:
    return "Caption:" if sample.task is Task.CAPTION else f"Question: {sample.prompt} Answer:"


def _about(work: Path, outcomes: dict[Training, Outcome], processes: int) -> str:
    whole = sum(one["seconds"] for one in json.loads((work / "times.json").read_text()).values())
    seconds, steps = (sum(one.trained[key] for one in outcomes.values()) for key in ("seconds", "steps"))
    return (
        f"{len(outcomes)} trainings, {processes} at a time, took {time_in_words(seconds)} together, "
        f"{seconds / steps:.2f} s a step; with extraction and scoring it was done after {time_in_words(whole)}."
    )


def _sides_table(
    seeing: dict[Modality, Outcome], blind: dict[Modality, Outcome], text_only: dict[Modality, dict[str, Any]]
) -> str:
    lines = ["| | steps | epalm | blind | text only | chance |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for modality in Modality:
        for task, measure in HEADLINE.items():
            tasks = [scores["tasks"][task] for scores in (seeing[modality].scores, blind[modality].scores)]
            figures = [one["figures"][measure] for one in (*tasks, text_only[modality]["tasks"][task])]
            cells = [f"{hundred(one['value'], '.1f')} ({interval_in_words(one, '.1f')})" for one in figures]
            chance = hundred(tasks[0]["chance"][measure], ".1f")
            cells = [f"{seeing[modality].trained['steps']:,}", *cells, chance]
            lines.append(f"| {modality} {'QA' if task is Task.QA else measure} | {' | '.join(cells)} |")
    return "\n".join(lines).replace(" – ", "–")


def _sample_table(seeing: dict[Modality, Outcome], blind: dict[Modality, Outcome], work: Path) -> str:
    lines = ["| medium | question | right | epalm | blind | text only |", "| --- | --- | --- | --- | --- | --- |"]
    for modality in Modality:
        frames = [api.scores(one[modality].trained["run"], split="test") for one in (seeing, blind)]
        given = dict(map(_line, (work / f"text-only-{modality}.jsonl").read_text().splitlines()))
        for task in Task:
            rows = frames[0][frames[0]["task"] == task]
            other = frames[1].set_index("id")["prediction"]
            for row in rows.iloc[:: max(1, len(rows) // _ANSWERS)].head(_ANSWERS).to_dict("records"):
                caption = task is Task.CAPTION
                asked = ("caption", row["references"][0]) if caption else (row["question"], next(iter(row["answers"])))
                answers = (row["prediction"], other[row["id"]], given[row["id"]])
                lines.append(f"| {' | '.join((Path(row['medium']).name, *asked, *answers))} |")
    return "\n".join(lines)


def _line(line: str) -> tuple[str, str]:
    entry = json.loads(line)
    return entry["id"], entry["text"]


if __name__ == "__main__":
    main()
