"""`epalm predict`: one file of the user's own, answered or captioned by a trained run."""

import json
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
from epalm.cli.options import DEFAULT_RUNS, DeviceOption, JsonOption, OptionalModalityOption, RunsOption


def predict(
    file: Annotated[Path, typer.Argument(help="An image, a video or a sound.", show_default=False)],
    question: Annotated[
        str | None, typer.Argument(help="What to ask. Without it: a caption.", show_default=False)
    ] = None,
    *,
    run: Annotated[
        str | None,
        typer.Option(help="A run's name or folder. [default: the latest of the file's modality]", show_default=False),
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
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Answer a question about one file, or caption it.

    Examples:

        epalm predict cat.jpg "what animal is this?"

        epalm predict clip.mp4

        epalm predict bell.wav "how many tones are there?" --run my-run

        epalm predict cat.jpg "what animal is this?" --rank-answers answers.txt
    """
    from epalm.cli.loaded_model import LoadedModel
    from epalm.console import say
    from epalm.datasets.extensions import modality_of
    from epalm.errors import MediaError, UsageError
    from epalm.extract.media_file import require_file
    from epalm.media import MediaFile
    from epalm.train.run_folder import RunFolder

    try:
        require_file(MediaFile(file))
    except MediaError as error:
        raise MediaError(f"{file}: {error.message}", hint=error.hint) from error
    kind = modality or modality_of(file)
    if run is None and kind is None:
        raise UsageError(f"{file}: the name does not say what it is", hint="--modality image, video or audio")
    folder = RunFolder.find(runs, run) if run else RunFolder.latest_of(runs, str(kind))
    model = LoadedModel(folder, device=device)
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
    tell_of_captions(decode, int(bool(question)), 0)
    text = model.answer(file, question, decode) if question else model.caption(file, decode)
    if as_json:
        typer.echo(json.dumps({"file": str(file), "question": question, "text": text, "run": str(folder.path)}))
    else:
        typer.echo(text)
