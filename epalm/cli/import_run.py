"""`epalm import`: a checkpoint of the paper's public implementation becomes a run."""

import json
from pathlib import Path
from typing import Annotated

import typer

from epalm.cli.options import (
    DEFAULT_RUNS,
    DeviceOption,
    JsonOption,
    ModalityOption,
    RunsOption,
    SetOption,
)
from epalm.samples import Modality


def import_run(
    file: Annotated[Path, typer.Argument(help="A published .pth file.", show_default=False)],
    *,
    modality: ModalityOption = Modality.IMAGE,
    recipe: Annotated[str, typer.Option(help="Whose settings hold where the checkpoint has none.")] = "vqa-v2",
    settings: SetOption = None,
    encoder: Annotated[
        str | None, typer.Option(help="The encoder it was trained with. [default: the modality's]", show_default=False)
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Its weights: Hub name or folder. [default: the recipe's]", show_default=False)
    ] = None,
    statistics: Annotated[
        str, typer.Option(help="Mean and deviation of pixels: clip, as the public implementation has it, or own.")
    ] = "clip",
    data: Annotated[
        str, typer.Option("--data", help="What `epalm score` works on when it is not told.", show_default=False)
    ] = "",
    runs: RunsOption = DEFAULT_RUNS,
    run: Annotated[
        str | None, typer.Option(help="Name of the run's folder. [default: time, modality, file]", show_default=False)
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Make a run of a checkpoint that the paper's public implementation saved: to score, predict and export.

    The checkpoint holds connector, prompt and adapters; language model and encoder are named here. It is read as
    tensors, never as code. Its attention is `reference`, as published.

    Examples:

        epalm import checkpoint_best.pth

        epalm import checkpoint_best.pth --set lm.name=facebook/opt-6.7b --weights vit_large_patch16_224

        epalm import video.pth --modality video --recipe msvd-qa --run published-msvd
    """
    from epalm.cache.spec import parse_layers
    from epalm.config import load_config
    from epalm.console import say
    from epalm.extract.encoders.registry import build_encoder
    from epalm.extract.live import choice_of
    from epalm.train.runs.importing import import_run as write
    from epalm.train.runs.importing import read_published
    from epalm.train.runs.run_folder import RunFolder
    from epalm.train.runs.run_lock import emptied_on_fault

    published = read_published(file)
    short = [f"encoder.kind={encoder}"] if encoder else []
    short += [f"encoder.weights={weights}"] if weights else []
    config = load_config(recipe, [*published.overrides, *short, *(settings or [])])
    statistics = "own" if modality is Modality.AUDIO else statistics
    chosen = choice_of(config.encoder, modality, config.encoder.weights, statistics)
    built = build_encoder(chosen, device=device)
    layers = parse_layers(f"last:{config.model.tokens}", built.depth)
    features = {
        "source": "live",
        "encoder": built.describe(),
        "layers": list(layers),
        "preprocessing": built.input.describe(),
        "view_seed": None,
        "choice": chosen.to_record(),
    }
    folder = RunFolder.create(runs, f"{modality.value}-{file.stem}", name=run)
    with emptied_on_fault(folder):
        write(published, config, file, folder, modality=modality.value, features=features, width=built.width, data=data)
    if as_json:
        typer.echo(json.dumps({"run": str(folder.path)}))
    say(f"run {folder.path}, {config.lm.name}, attention {config.model.attention}; next: epalm predict, epalm score")
