"""The options that several commands share: one name, one meaning each, by the name of the parameter or field."""

from pathlib import Path

import epalm
from epalm.request_fields import Option

DEFAULT_CACHE = epalm.DEFAULT_CACHE
DEFAULT_RUNS = Path(epalm.DEFAULT_RUNS)

_DATA = (
    "Samples (.jsonl, .json, .csv, .tsv), a folder of media, tar shards, NAME:/root of a benchmark (epalm datasets), "
    'or "playground"'
)
_NOW = "Where the run's {} is now: a folder or Hub name. [default: as in training]"
_SCHEDULER = "With --engine dask: tcp://HOST:PORT of a cluster's scheduler. [default: a cluster on this machine]"
_WORKERS = "With --engine dask, no --scheduler: processes to start."

SHARED = {
    "cache": Option("Feature cache: a folder, or a URL such as s3://bucket/cache.", envvar="EPALM_CACHE"),
    "runs": Option("Folder that holds the run folders.", envvar="EPALM_RUNS"),
    "data": Option(f"{_DATA} (the built-in world)."),
    "follow_links": Option("Let links below the data's folder lead out of it; later steps on this data do so too."),
    "modality": Option("Which media to work on.", short="-m"),
    "device": Option("auto, cpu, cuda, cuda:N or mps; auto takes the GPU where there is one."),
    "recipe": Option("A recipe's name or a .toml file. [default: that of the same name as the data; own for yours]"),
    "settings": Option("Override one key of the recipe; may be given several times.", name="set", metavar="KEY=VALUE"),
    "checkpoint": Option("best, by the loss at validation, or latest, of a run that is not done too."),
    "layers": Option("Blocks whose tokens are used: last:6, all, 6-11 or 7,9,11. [default: those of the extraction]"),
    "engine": Option("Who does the work: local (this machine) or dask.", panel="Machine"),
    "scheduler": Option(_SCHEDULER, panel="Machine"),
    "dask_workers": Option(_WORKERS, panel="Machine", minimum=1),
    "lm": Option(_NOW.format("language model")),
    "weights": Option(_NOW.format("encoder")),
    "plan": Option("Say what would be done, and stop: nothing is written."),
    "as_json": Option("Print the result as JSON on stdout.", name="json"),
    "force": Option("Replace the file even if epalm did not write it; never an input."),
}
OPTIONAL = {  # those of them that say something else where None is allowed
    "data": Option(f"{_DATA}. [default: that of the step before]"),
    "modality": Option("Which media to work on. [default: found from what is there]", short="-m"),
}
