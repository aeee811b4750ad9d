"""`epalm predict`: files of the user's own, answered or captioned by a trained run."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from epalm.cli.decode_options import (
    DecodeSeedOption,
    MaxLengthOption,
    NumBeamsOption,
    RankAnswersOption,
    SamplingOption,
    TemperatureOption,
    TopPOption,
    chosen_decoding,
    tell_of_captions,
)
from epalm.cli.options import (
    DEFAULT_RUNS,
    DeviceOption,
    JsonOption,
    LmOption,
    OptionalModalityOption,
    RunsOption,
    WeightsOption,
)
from epalm.errors import EpalmError, MediaError, UsageError
from epalm.samples import Modality

_FILE_LIKE = re.compile(r"\S+\.\w{1,5}|\S*/\S*")  # a name with an extension, or a path: no question


def predict(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE... [QUESTION]",
            help="Images, videos or sounds, and what to ask about each; without a question: captions.",
            show_default=False,
        ),
    ] = None,
    *,
    question: Annotated[
        str | None,
        typer.Option("--question", "-q", help="What to ask; every argument is a file then.", show_default=False),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(help="A run's name or folder. [default: the latest of the files' modality]", show_default=False),
    ] = None,
    modality: OptionalModalityOption = None,
    num_beams: NumBeamsOption = None,
    max_length: MaxLengthOption = None,
    sampling: SamplingOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    seed: DecodeSeedOption = None,
    rank_answers: RankAnswersOption = None,
    runs: RunsOption = DEFAULT_RUNS,
    lm: LmOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Answer a question about each of some files, or caption them.

    Arguments that are files are files, and one that is none is the question. The answers to several files are a table,
    or with --json a line each. A file that cannot be read leaves the others; the exit code is 1 then.

    Examples:

        epalm predict cat.jpg "what animal is this?"

        epalm predict clip.mp4

        epalm predict photos/*.jpg -q "what animal is this?" --json

        epalm predict bell.wav "how many tones are there?" --run my-run

        epalm predict cat.jpg "what animal is this?" --rank-answers answers.txt
    """
    from epalm.console import print_table, say, show_error
    from epalm.evaluate.loaded_model import LoadedModel
    from epalm.train.runs.run_folder import RunFolder

    files, question = _files_and_question(words or [], question)
    folder = RunFolder.find(runs, run) if run else RunFolder.latest_of(runs, modality or _modality_of(files))
    model = LoadedModel(folder, device=device, lm=lm, weights=weights)
    inputs = model.run.inputs
    say(f"run: {folder.path}, trained on {inputs['data'] or 'other data'}, {model.run.config.lm.name}")
    decode = chosen_decoding(
        model.run.config.decode,
        num_beams=num_beams,
        max_length=max_length,
        sampling=sampling,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        rank_answers=rank_answers,
    )
    tell_of_captions(decode, len(files) if question else 0, 0)
    texts = model.say(files, [question] * len(files), decode)
    faults = [text for text in texts if isinstance(text, MediaError)]
    read = [(file, text) for file, text in zip(files, texts, strict=True) if not isinstance(text, MediaError)]
    if as_json:
        for file, text in zip(files, texts, strict=True):
            failed = isinstance(text, MediaError)
            said = {"text": None, "error": str(text)} if failed else {"text": text}
            typer.echo(json.dumps({"file": file, "question": question, **said, "run": str(folder.path)}))
    elif len(files) > 1 and read:
        print_table(question or "captions", ("file", "answer" if question else "caption"), read)
    else:
        typer.echo("".join(text for _, text in read), nl=bool(read))
    for fault in faults:
        show_error(fault)
    if faults:
        raise typer.Exit(1)


def _files_and_question(words: Sequence[str], question: str | None) -> tuple[list[str], str | None]:
    """Which of the arguments are files, and what is asked. Raises EpalmError: one is neither."""
    others = [word for word in words if not os.path.lexists(word)] if question is None else []
    files = [word for word in words if word not in others]
    absent = [word for word in files if not os.path.lexists(word)]
    absent += [word for word in others if _FILE_LIKE.fullmatch(word)]
    if absent:
        hint = "check the path" if question is not None else "check the path; a question goes after -q"
        raise MediaError(f"{absent[0]}: there is no such file", hint=hint)
    if len(others) > 1:
        several = ", ".join(map(repr, others))
        raise UsageError(f"these are {len(others)} questions, or no files: {several}", hint="quote one question")
    question = others[0] if others else question
    if question is not None and not question.strip():
        raise UsageError("the question is empty", hint="leave it out for a caption")
    if not files:
        raise UsageError("no file is named", hint='epalm predict cat.jpg "what animal is this?"')
    return files, question


def _modality_of(files: Sequence[str]) -> Modality:
    """That of all files, as their names have it. Raises EpalmError: there is none, or they have several."""
    from epalm.datasets.listing import modality_of

    kinds = {file: modality_of(Path(file)) for file in files}
    for file, kind in kinds.items():
        if not Path(file).is_file():
            raise MediaError(f"{file}: this is not a regular file", hint="name a media file")
        if kind is None:
            raise UsageError(f"{file}: the name does not say what it is", hint="--modality image, video or audio")
    known = list(dict.fromkeys(kind for kind in kinds.values() if kind is not None))
    if len(known) > 1:
        raise EpalmError(f"the files are {' and '.join(known)} media", hint="name those of one kind, or a --run")
    return known[0]
