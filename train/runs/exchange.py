"""Runs handed on: as a small folder that is read like a run, and out of what the paper's public implementation saved.

Of where an export was trained, only what frozen models were named by goes along. A published checkpoint is a pickle of
tensors, loaded as such and never as code, of a model with `reference` attention; whether all tensors are there is seen
when they are put into a model.
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch

from epalm import __version__
from epalm.cache.objects.durable import write_atomically
from epalm.datasets import short_name
from epalm.errors import UsageError
from epalm.figures import hundred, interval_in_words, samples_in_words
from epalm.fingerprint import digest_file, digest_tensors
from epalm.recipes.config import Config
from epalm.train.bridge.build import build_model
from epalm.train.data.templates import ANSWER
from epalm.train.data.text import load_text_format
from epalm.train.lm.load import load_lm
from epalm.train.runs.run_folder import RunFolder, writing

_KEPT = ("modality", "width", "layout", "lm", "epalm", "imported")  # of a run's inputs
_OF_FEATURES = ("encoder", "layers", "preprocessing", "choice")
Tensors = dict[str, torch.Tensor]
_CONNECTOR = re.compile(r"connector\.(\d{1,4})\.(weight|bias)")
_PROMPT = re.compile(r"prompt_module\.prefix_embedding\.([013])\.(weight|bias)")
_PROMPT_LAYERS = {"1": "inner", "3": "outer"}
# The blocks were registered under two names, and adapters were saved under both.
_ADAPTER = re.compile(
    r"(?:model_text\.model\.decoder\.layers|transformer)\.(\d+)\.(self_attn|fc2\.1)\.adapter\.([02])\.(weight|bias)"
)
_ADAPTER_NAMES = {"self_attn": "attention", "fc2.1": "feed_forward", "0": "down", "2": "up"}
# What the public implementation could do and this one does not: keys of its config, and their values that can be.
_ALLOWED: dict[str, tuple[Any, ...]] = {
    "connector_type": ("linear",),
    "text_step": (1,),  # perceptual tokens in every block
    "select_higher_step": (False,),
    "deep": (False,),  # prompt
    "special_answer_token": (None, ANSWER),
    **{f"unfreeze_{part}": (False,) for part in ("text_model", "vision_model", "text_layer_norm", "vision_layer_norm")},
}


def export_run(run: RunFolder, out: Path, *, checkpoint: str = "best") -> int:
    """Write the run's checkpoint into a new folder; how many bytes that takes.

    Raises:
        UsageError: the checkpoint or its scores are damaged, there is none, or something is at `out` already.
        EpalmError: the folder cannot be written.
    """
    inputs, (tensors, step) = run.inputs, run.load(checkpoint)
    kept = {key: inputs[key] for key in _KEPT if key in inputs}
    features = {"source": "live", "view_seed": None, **{key: inputs["features"][key] for key in _OF_FEATURES}}
    card = _card(run, features, step, sum(tensor.numel() for tensor in tensors.values()))
    if os.path.lexists(out):
        raise UsageError(f"{out} is there already", hint="name one that is not there yet")
    exported = RunFolder(out)
    with writing(out):
        out.mkdir(parents=True)
        try:
            exported.begin(run.config, {**kept, "data": "", "features": features})
            exported.save_only(tensors, step=step)
            write_atomically(out / "README.md", card.encode())
        except BaseException:
            shutil.rmtree(out, ignore_errors=True)
            raise
    return sum(path.stat().st_size for path in out.iterdir())


def _card(run: RunFolder, features: Mapping[str, Any], step: int, parameters: int) -> str:
    from jinja2 import StrictUndefined, Template

    lm, text = run.config.lm.name, files(__package__).joinpath("card.md").read_text("utf-8")
    card: str = Template(text, undefined=StrictUndefined, keep_trailing_newline=True).render(
        name=run.name,
        modality=run.inputs["modality"],
        config=run.config,
        on_hub=lm.count("/") == 1 and not lm.startswith((".", "/")),
        parameters=parameters,
        encoder=features["encoder"].get("kind", ""),
        weights=json.loads(features["choice"]["encoder"])["weights"] if features["choice"] else None,
        scores=_scores(run, step),
    )
    return card


def _scores(run: RunFolder, step: int) -> str:
    """Rows of the card, one a measure, where the checkpoint was scored; of what data and of how many samples it is."""
    path = run.path / "scores.json"
    if not path.is_file():
        return ""
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        if scores["checkpoint_step"] != step:
            return ""
        of = f"split {scores['split']} of {short_name(str(scores['data']))}"
        return "".join(
            f"| {task}, {name} | {hundred(one['value'])} ({interval_in_words(one)}), {samples_in_words(one)}, {of} |\n"
            for task, of_task in scores["tasks"].items()
            for name, one in of_task["figures"].items()
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{path} cannot be read: {error!r}", hint="epalm score writes it again") from error


class Published(NamedTuple):
    """A published checkpoint: settings as overrides `section.key=value`, tensors by the names of a run's."""

    overrides: tuple[str, ...]
    tensors: Tensors
    epoch: int | None


def read_published(path: Path) -> Published:
    """Read a `.pth` file.

    Raises:
        UsageError: it cannot be read, holds more than tensors and plain values, or is of a form that cannot be built.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch makes of a file that is none
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"{path} was not loaded: it is damaged, or holds more than tensors and plain values, which could run code: "
            f"{first}",
            hint="give a published .pth; where it was written, keep only 'model' and a 'config' of plain values",
        ) from error
    model, config = (content.get(key) if isinstance(content, dict) else None for key in ("model", "config"))
    tensors: Mapping[Any, Any] = model if isinstance(model, Mapping) else {"": None}
    if not isinstance(config, Mapping) or not all(isinstance(one, torch.Tensor) for one in tensors.values()):
        raise UsageError(
            f"{path} is no published checkpoint: it has no tensors in 'model' beside a 'config'", hint="give a .pth"
        )
    try:
        renamed = _renamed({str(name).removeprefix("module."): tensor for name, tensor in tensors.items()})
        overrides = _overrides(config, renamed)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"{path}: {error}", hint="the file is damaged, or its config is of another run") from error
    epoch = content.get("epoch")
    return Published(overrides, renamed, epoch if isinstance(epoch, int) else None)


def import_run(
    source: Path, published: Published, config: Config, inputs: Mapping[str, Any], runs: Path, name: str | None
) -> RunFolder:
    """Make a run below `runs` of what was read from `source`: named so, or by time, modality and file.

    `inputs` has "modality", "features" (the encoder and its layers), their "width", and "data" to score. Raises
    UsageError: the checkpoint was trained with another language model or encoder.
    """
    _, hidden, width = published.tensors["connector.weight"].shape
    lm = load_lm(config.lm.name, config.lm.dtype, config.lm.quantized)
    digest = digest_tensors(lm.state_dict())
    load_text_format(config.lm.name, lm, config.text)
    config = config.resolved(lm.config.num_hidden_layers)
    model = build_model(config, lm, inputs["width"])
    try:
        model.load_trainable(published.tensors)
    except ValueError as error:
        raise UsageError(
            f"{source}, for tokens of width {width} and a language model of width {hidden}, does not fit an encoder of "
            f"width {inputs['width']} and {config.lm.name!r}, of width {lm.config.hidden_size}: {error}",
            hint="name those that it was trained with: --encoder, --weights, --set lm.name=facebook/opt-2.7b",
        ) from error
    folder = RunFolder.create(runs, f"{inputs['modality']}-{source.stem}", name=name)
    imported = {"file": source.name, "sha256": digest_file(source), "epoch": published.epoch}
    folder.begin(config, {**inputs, "lm": digest, "epalm": __version__, "imported": imported})
    folder.save_only(model.trainable_tensors(), step=0)
    return folder


def _renamed(model: Tensors) -> Tensors:
    """The tensors by the names of a run's. Raises ValueError."""
    renamed: Tensors = {}
    layers: Tensors = {}
    for name, tensor in model.items():
        own = None
        if prompt := _PROMPT.fullmatch(name):
            layer, kind = prompt.groups()
            own = "prompt.embedding" if layer == "0" else f"prompt.{_PROMPT_LAYERS[layer]}.{kind}"
        if adapter := _ADAPTER.fullmatch(name):
            block, place, side, kind = adapter.groups()
            own = f"adapters.{int(block)}.{_ADAPTER_NAMES[place]}.{_ADAPTER_NAMES[side]}.{kind}"
        if _CONNECTOR.fullmatch(name):
            layers[name] = tensor
        elif own is None:
            raise ValueError(f"it holds {name!r}, which no variant has")
        elif not torch.equal(renamed.setdefault(own, tensor), tensor):
            raise ValueError(f"it holds two different tensors for {own}")
    count = 1 + max((int(name.split(".")[1]) for name in layers), default=0)
    for kind, dimensions in (("weight", 3), ("bias", 2)):
        names = [f"connector.{layer}.{kind}" for layer in range(count)]
        if absent := [name for name in names if name not in layers]:
            raise ValueError(f"it lacks {absent[0]}")
        stacked = torch.stack([layers[name] for name in names])
        if stacked.ndim != dimensions:
            raise ValueError(f"its connector's {kind} has {stacked.ndim - 1} dimensions")
        renamed[f"connector.{kind}"] = stacked
    return {name: tensor.float() for name, tensor in renamed.items()}


def _overrides(config: Mapping[Any, Any], tensors: Tensors) -> tuple[str, ...]:
    """The settings, whose values are checked where they are read.

    Raises ValueError: what cannot be built here, or calls for other sizes than the tensors have.
    """
    prompted, adapted = bool(config.get("prompt_tuning", False)), bool(config.get("use_adapters", False))
    asked = {key: config.get(key) or allowed[0] for key, allowed in _ALLOWED.items() if key != "deep" or prompted}
    faults = [f"{key} {value!r}" for key, value in asked.items() if value not in _ALLOWED[key]]
    form = config.get("adapter_config")
    parts = [form.get(name) if isinstance(form, Mapping) else None for name in ("attention", "mlp")]
    forms = [
        (part.get("adapter_type"), bool(part.get("add_layernorm")), part.get("downsample_factor", 4))
        for part in parts
        if isinstance(part, Mapping)
    ]
    factor = forms[0][2] if forms else None
    if adapted and forms != [("normal", False, factor)] * 2:
        faults.append("adapters of another form (not behind both self-attention and fc2, or of two forms)")
    if faults:
        raise ValueError(f"it has {', '.join(faults)}, which cannot be taken over: train it here instead")
    length = config.get("prompt_len", 10)
    own = len(tensors["prompt.embedding"]) if "prompt.embedding" in tensors else 1
    if "prompt.embedding" in tensors and own != length:
        raise ValueError(f"it has another prompt than the {length} vectors of its settings")
    settings = {
        "model.attention": "reference",
        "model.tokens": config.get("injected_hidden_states", 1),
        "model.start": config.get("start_layer_idx", 0),
        "model.end": config.get("end_layer_idx", 0),
        "model.connector": "separate" if config.get("shared_connector") is None else "shared",
        "model.prompt": "none" if not prompted else "mlp" if config.get("mlp", True) else "plain",
        "model.prompt_length": own,
        "model.deep_prompt": "false",
        "model.adapters": "bottleneck" if adapted else "none",
        "decode.num_beams": config.get("num_beams", 1),
        "decode.max_length": config.get("max_length", 30),
    }
    if adapted:
        settings["model.adapter_factor"] = factor
    if config.get("special_answer_token") is not None:
        settings["data.tasks"] = "['qa']"
    return tuple(f"{key}={value}" for key, value in settings.items())
