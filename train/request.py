"""What a training may be asked for: every option of `epalm train`, documented beside it. Loads no library."""

from dataclasses import dataclass
from pathlib import Path

from epalm import DEFAULT_CACHE, DEFAULT_RUNS, PLAYGROUND
from epalm.request_fields import option
from epalm.samples import LINKS, Modality
from epalm.train.runs.tracking import TrackerName

OWN = "own"


@dataclass(frozen=True)
class RecipeChanges:
    """What is changed of a recipe: options that are short for a setting each, and settings by their keys."""

    variant: str | None = option("epalm, epalm-pt, epalm-lin, epalm-ada or epalm-pt-l. [default: the recipe's]", None)
    bridge: str | None = option(
        "What stands between encoder and language model; epalm bridges lists them. [default: the recipe's]", None
    )
    inject: str | None = option(
        "Where perceptual tokens enter, such as 6@19:31. [default: the recipe's]", None, metavar="TOKENS@START:END"
    )
    few_shot: str | None = option(
        "Train on so many samples (16) or such a share of them (0.01), drawn by the seed. "
        "Brings the few-shot figures along.",
        None,
        metavar="COUNT|SHARE",
    )
    settings: list[str] | None = None
    blind: bool = option("Withhold the perceptual token: what the text alone gives away.", False)
    seed: int | None = option("Short for --set optim.seed=N.", None, minimum=0)

    def overrides(self) -> list[str]:
        """As settings, "section.key=value"; those by key come last, and win. Raises UsageError: a wrong form."""
        from epalm.recipes.config import parse_inject

        places = parse_inject(self.inject) if self.inject is not None else (None, None, None)
        settings = {
            "model.variant": self.variant or None,
            "model.bridge": self.bridge or None,
            **dict(zip(("model.tokens", "model.start", "model.end"), places, strict=True)),
            "data.few_shot": self.few_shot,
            "model.blind": "true" if self.blind else None,
            "optim.seed": self.seed,
        }
        chosen = [f"{key}={value}" for key, value in settings.items() if value is not None]
        return [*chosen, *(self.settings or ())]


@dataclass(frozen=True)
class TrainRequest:
    """A training as it is asked for. Fields without a text of their own are options that several commands share."""

    from_cache: bool = option("Take features from the cache; else the encoder runs in the loop.", False)
    modality: Modality | None = None  # [the latest extraction's]
    data: str | None = None  # `--data` [that of the latest extraction]
    follow_links: bool = False  # out of the folder of the data
    recipe: str | None = None  # name or TOML file [that of the data]
    changes: RecipeChanges = RecipeChanges()
    feature_set: str | None = option("Feature set of the cache. [default: of the latest extraction]", None)
    layers: str | None = None  # of the encoder, as typed [those of the extraction]
    allow_missing: int = option("Go on without up to this many media.", 0, minimum=0)
    canary: bool | None = option("Encode a few media again first, and compare them with the cache.", True)
    cache: str = DEFAULT_CACHE
    runs: Path = Path(DEFAULT_RUNS)
    run: str | None = option("Name of the run's folder. [default: time, modality, recipe]", None)
    track: list[TrackerName] | None = option("Send the metrics to a tracker too; may be given several times.", None)
    device: str = "auto"
    workers: int = option("Threads that put batches together ahead of the step.", 2, minimum=0)
    shard_lm: bool = option("Divide the frozen language model among the processes of a launcher.", False)


def recipe_for(data: str) -> str:
    """The recipe of the same name as a benchmark's data, or the playground's; `own` for a user's own data.

    Raises UsageError: there is none for that benchmark.
    """
    from epalm.datasets.benchmarks import parse_spec
    from epalm.errors import UsageError
    from epalm.recipes.config import recipes

    if data == PLAYGROUND:
        return PLAYGROUND
    named = parse_spec(data.removeprefix(LINKS))
    if named is None:
        return OWN
    if named[0].name not in recipes():
        raise UsageError(
            f"data {named[0].name!r} needs a --recipe", hint=f"--recipe {OWN} fits the schedule to the data"
        )
    return named[0].name
