"""A training as the user sees it: what it differs in from the nearest run, how it is stopped, what came of it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from epalm.cli.stopping import asked_to_stop
from epalm.console import say, warn
from epalm.errors import EpalmError

if TYPE_CHECKING:
    from epalm.cache.feature_set import FeatureSet
    from epalm.train.processes import Processes
    from epalm.train.run import Loaded, TrainSummary
    from epalm.train.runs.run_choice import Choice
    from epalm.train.runs.run_folder import RunFolder

_SHOWN = 8  # changes; the rest is counted


def agree_on_run(processes: "Processes", choose: "Callable[[], Choice]") -> "Choice":
    """The first process's choice, made by it alone, and known to all of them; the others need not say why."""
    from epalm.train.runs.run_choice import Choice
    from epalm.train.runs.run_folder import RunFolder

    chosen = choose() if processes.first else None
    told = json.dumps([str(chosen.folder.path), chosen.summary]) if chosen else ""
    path, summary = json.loads(processes.from_first(told))
    return chosen or Choice(RunFolder(Path(path)), summary)


def show_start(chosen: "Choice", loaded: "Loaded") -> None:
    """What a new run differs in from the nearest one, how long it is going to train, what it falls short of."""
    if not loaded.processes.first:
        return
    if chosen.nearest is not None:
        rest = f"; and {len(chosen.changes) - _SHOWN} more" if len(chosen.changes) > _SHOWN else ""
        say(f"a new run; changed since {chosen.nearest.name}: {'; '.join(chosen.changes[:_SHOWN])}{rest}")
    batches, plan = loaded.ready.batches, loaded.ready.plan
    say(
        f"{len(batches.items):,} training items, {plan.schedule.epochs:,} epochs of {len(batches):,} steps, "
        f"{plan.steps:,} in all; the rate warms up for {min(plan.schedule.warmup_steps, plan.steps):,}, up to "
        f"{plan.schedule.peak_lr:.1e}"
    )
    for shortfall in loaded.ready.shortfalls:
        warn(shortfall)


def train_until_stopped(loaded: "Loaded", folder: "RunFolder", trackers: Sequence[str] = ()) -> "TrainSummary":
    """Train in a run folder. After Ctrl-C or SIGTERM the command ends with the exit code that shells give these."""
    from epalm.train.run import train

    with asked_to_stop(lambda: say("stopping after this step; once more stops at once")) as asked:
        try:
            summary = train(loaded, folder, stop=asked, trackers=trackers)
        except KeyboardInterrupt:
            say(f"stopped; {folder.path} keeps its last checkpoint, and the same command goes on from there")
            raise typer.Exit(asked.exit_code) from None
    if summary is None:
        say(f"stopped and saved in {folder.path}; the same command goes on")
        raise typer.Exit(asked.exit_code)
    return summary


@contextmanager
def emptied_on_fault(folder: "RunFolder") -> Iterator[None]:
    """A fault before anything is written leaves no run folder."""
    from epalm.train.runs.run_lock import discard_empty

    try:
        yield
    except EpalmError:
        discard_empty(folder)
        raise


def mark_use(used: "FeatureSet", folder: "RunFolder") -> None:
    """From now on no collection takes the feature set away."""
    import socket

    from epalm.cache.care.uses import mark

    mark(used.objects, str(folder.path.resolve()), socket.gethostname())


def show_done(chosen: "Choice", as_json: bool) -> None:
    """That the same training is done already, where, and what came of it; it is the latest run again."""
    from epalm.figures import headline_in_words
    from epalm.train.runs.listing import headlines
    from epalm.train.runs.run_key import library_versions, version_changes

    folder = chosen.folder
    folder.finish()
    say(f"this training is done already: {folder.path}; --again trains once more")
    if changes := version_changes(folder.inputs, {"versions": library_versions()}):
        say(f"it was begun with other versions ({changes}), whose bits may differ from those of these")
    scores = "; ".join(headline_in_words(name, figure) for name, figure in headlines(folder).items())
    say(f"scored: {scores}, × 100" if scores else "not scored yet")
    show_summary({**(chosen.summary or {}), "run": str(folder.path)}, as_json)


def show_summary(summary: Mapping[str, Any], as_json: bool) -> None:
    """What a training did, and what comes next."""
    if as_json:
        typer.echo(json.dumps(summary))
    share = summary["trainable_parameters"] / summary["all_parameters"]
    exact = ""
    if summary["val_exact"] is not None:
        exact = f", validation loss {summary['val_loss']:.3f} nats, exact {summary['val_exact']:.3f}"
        exact += f" ({summary['val_samples']:,} of {summary['val_of']:,} samples)" if "val_of" in summary else ""
    say(
        f"{summary['steps']} steps in {summary['seconds']:.1f} s; {summary['trainable_parameters']:,} trained "
        f"parameters, {share:.2%} of all{exact}"
    )
    say(f"run {summary['run']}; next: epalm score")
