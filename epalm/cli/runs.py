"""What is done with runs: `epalm runs` lists and compares them, `epalm export` and `epalm import` hand them on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from epalm.cli.options import DEFAULT_RUNS
from epalm.cli.tables import Listing, Record, show_listing, show_values
from epalm.console import say, size_in_words
from epalm.errors import UsageError
from epalm.figures import headline_in_words
from epalm.request_fields import option
from epalm.samples import Dataset, Modality


def runs(
    names: Annotated[
        list[str] | None, typer.Argument(help="A run to look at closely, or two to compare.", show_default=False)
    ] = None,
    runs: Path = DEFAULT_RUNS,
    *,
    listing: Listing,
) -> None:
    """List the runs: done, running, stopped at a step, or damaged; with the best validation and the scores.

    With a name, all that is known of that run; with two, what differs between them.

    Examples:

        epalm runs
        epalm runs --format csv > runs.csv
        epalm runs my-run --json
        epalm runs one other
    """
    from epalm.train.runs.listing import COLUMNS, run_differences, run_record, runs_frame
    from epalm.train.runs.run_folder import RunFolder

    if names and len(names) > 2:
        raise UsageError(f"{len(names)} runs are named", hint="name one to look at it, two to compare them")
    named = [RunFolder.find(runs, name) for name in names or ()]
    if len(named) == 1:
        record = run_record(named[0], runs)
        rows = {**_cells(record), "folder": record["path"], "damage": record["fault"] or ""}
        rows |= {key.replace("_", " "): str(record[key]) for key in record if key not in COLUMNS}
        shown = {name: value for name, value in rows.items() if value}
        show_values(shown, listing.form, title=record["name"], as_json=record)
    elif named:
        changes, same = run_differences(*named), "the same training: nothing that decides it differs"
        lines, whole = [{"what differs": change} for change in changes], {"runs": names, "differences": changes}
        show_listing(lines, listing.form, title=" → ".join(names or ()), empty=same, as_json=whole)
    else:
        frame = runs_frame(runs)
        faults = frame[frame["fault"].notna()]
        show_listing(
            frame,
            listing.form,
            title=f"runs in {runs}",
            cells=_cells,
            empty=f"there is no run in {runs}; epalm train --from-cache makes one",
            notes=[f"{name}: {fault}" for name, fault in zip(faults["name"], faults["fault"], strict=True)],
        )


def _cells(one: Record) -> dict[str, str]:
    step, steps = one["step"], one["steps"]
    return {
        "run": one["name"],
        "state": f"stopped at step {step or 0:,}" if one["state"] == "stopped" else one["state"],
        **{name: one[name] or "" for name in ("modality", "recipe", "variant")},
        "steps": "" if step is None else f"{step:,}" if steps is None else f"{step:,}/{steps:,}",
        "best validation": validation_in_words(one),
        "scores × 100": "; ".join(headline_in_words(name, figure) for name, figure in (one["scores"] or {}).items()),
    }


def validation_in_words(one: Mapping[str, Any]) -> str:
    """A run's best validation, such as "2.345 nats, exact 0.500 (80 of 500 samples)"; empty where there is none yet."""
    if one["val_loss"] is None:
        return ""
    of = f" of {one['val_of']:,}" if one.get("val_of") else ""
    return f"{one['val_loss']:.3f} nats, exact {one['val_exact']:.3f} ({one['val_samples']:,}{of} samples)"


def export_run(
    run: Annotated[str, typer.Argument(help="A run's name or folder.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The folder to make.", writable=True, show_default=False)],
    *,
    checkpoint: str = "best",
    runs: Path = DEFAULT_RUNS,
    as_json: bool = False,
) -> None:
    """Write a run's trained tensors, its settings and a model card into a folder, to hand on or to push to the Hub.

    In Python, `epalm.load(folder)` gives a model with `answer` and `caption`; `epalm predict --run folder` and
    `epalm score --run folder` take it as well. Language model and encoder are not in it.

    Examples:

        epalm export my-run my-model
        epalm export .epalm/runs/my-run my-model --checkpoint latest
    """
    from epalm.train.runs import exchange
    from epalm.train.runs.run_folder import RunFolder

    size = exchange.export_run(RunFolder.find(runs, run), out, checkpoint=checkpoint)
    if as_json:
        typer.echo(json.dumps({"folder": str(out), "bytes": size}))
    say(f"{out}, {size_in_words(size)}; in Python: epalm.load({str(out)!r})")


@dataclass(frozen=True)
class ImportRequest:
    """What a published checkpoint was trained with, and where its run goes."""

    modality: Modality = Modality.IMAGE
    recipe: str = option("Whose settings hold where the checkpoint has none.", "vqa-v2")
    settings: list[str] | None = None
    encoder: str | None = option("The encoder it was trained with. [default: the modality's]", None)
    weights: str | None = option("Its weights: Hub name or folder. [default: the recipe's]", None)
    data: str = option("What `epalm score` works on when --data is left out.", "")
    runs: Path = DEFAULT_RUNS
    run: str | None = option("Name of the run's folder. [default: time, modality, file]", None)
    device: str = "auto"


def import_run(
    file: Annotated[Path, typer.Argument(help="A published .pth file.", show_default=False)],
    *,
    request: ImportRequest,
    as_json: bool = False,
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
    from epalm.extract.encoders.registry import build_encoder
    from epalm.extract.live import LiveFeatures, choice_of
    from epalm.recipes.config import load_config
    from epalm.train.runs import exchange

    published = exchange.read_published(file)
    short = [f"encoder.kind={request.encoder}"] if request.encoder else []
    short += [f"encoder.weights={request.weights}"] if request.weights else []
    config = load_config(request.recipe, [*published.overrides, *short, *(request.settings or [])])
    statistics = "own" if request.modality is Modality.AUDIO else "clip"  # of pixels: the public implementation's
    chosen = choice_of(config.encoder, request.modality, statistics=statistics)
    built = build_encoder(chosen, device=request.device)
    layers = parse_layers(f"last:{config.model.tokens}", range(built.depth))
    features = LiveFeatures(built, layers, Dataset(request.data, Path(), ()), choice=chosen).describe()
    inputs = {"modality": request.modality.value, "features": features, "width": built.width, "data": request.data}
    folder = exchange.import_run(file, published, config, inputs, request.runs, request.run)
    if as_json:
        typer.echo(json.dumps({"run": str(folder.path)}))
    say(f"run {folder.path}, {config.lm.name}, attention {config.model.attention}; next: epalm predict, epalm score")
