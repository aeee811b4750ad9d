"""Checkpoints of the paper's public implementation, and a run folder of one, which is scored like a trained one.

Reads the trained part of a model as it was published: a pickle of tensors, loaded as such and never as code. Such
models were trained with `reference` attention. Whether all tensors are there is seen when they are put into a model.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from epalm import __version__
from epalm.config import Config
from epalm.errors import UsageError
from epalm.fingerprint import digest_file, digest_tensors
from epalm.train.bridge.build import build_model
from epalm.train.data.text import ANSWER, load_text_format
from epalm.train.lm.load import load_lm
from epalm.train.runs.run_folder import RunFolder

Tensors = dict[str, torch.Tensor]
_CONNECTOR = re.compile(r"connector\.(\d{1,4})\.(weight|bias)")
_PROMPT = "prompt_module.prefix_embedding."
_PROMPT_NAMES = {
    "0.weight": "embedding",
    "1.weight": "inner.weight",
    "1.bias": "inner.bias",
    "3.weight": "outer.weight",
    "3.bias": "outer.bias",
}
# The blocks were registered under two names, and adapters were saved under both.
_ADAPTER = re.compile(
    r"(?:model_text\.model\.decoder\.layers|transformer)\.(\d+)\.(self_attn|fc2\.1)\.adapter\.([02])\.(weight|bias)"
)
_ADAPTER_NAMES = {"self_attn": "attention", "fc2.1": "feed_forward", "0": "down", "2": "up"}
_UNFROZEN = ("text_model", "vision_model", "text_layer_norm", "vision_layer_norm")
_DAMAGED = "the file is damaged, or its config is of another run"


@dataclass(frozen=True)
class Published:
    """A published checkpoint: settings as overrides `section.key=value`, tensors by the names of a run's."""

    overrides: tuple[str, ...]
    tensors: Tensors
    width: int  # D_enc
    hidden: int  # D
    epoch: int | None


def read_published(path: Path) -> Published:
    """Read a `.pth` file.

    Raises:
        UsageError: it cannot be read, holds more than tensors and plain values, or is of a form that cannot be built.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UsageError(
            f"{path} is damaged, or holds more than tensors and plain values: it was not loaded, because reading it "
            "could run code",
            hint="in the environment that wrote it: keep only 'model' and a 'config' of plain values, and save again",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path} cannot be read as a checkpoint: {first}", hint="give a published .pth") from error
    model, config = (content.get(key) if isinstance(content, dict) else None for key in ("model", "config"))
    if not isinstance(model, Mapping) or not isinstance(config, Mapping) or not all(map(_is_tensor, model.items())):
        raise UsageError(
            f"{path} is no published checkpoint: it has no tensors in 'model' beside a 'config'", hint="give a .pth"
        )
    try:
        tensors = _renamed({name.removeprefix("module."): tensor for name, tensor in model.items()})
        _refuse_others(config)
        overrides = _overrides(config, tensors)
    except ValueError as error:
        raise UsageError(f"{path}: {error}", hint=_DAMAGED) from error
    epoch, (_, hidden, width) = content.get("epoch"), tensors["connector.weight"].shape
    return Published(overrides, tensors, width, hidden, epoch if isinstance(epoch, int) else None)


def import_run(
    published: Published,
    config: Config,
    source: Path,
    folder: RunFolder,
    *,
    modality: str,
    features: Mapping[str, Any],
    width: int,
    data: str = "",
) -> None:
    """Write the run; it is the latest then. `features` describe the encoder, of width `width`, and its layers.

    Raises:
        UsageError: the checkpoint was trained with another language model or encoder.
    """
    if published.width != width:
        raise UsageError(
            f"{source} takes tokens of width {published.width}, and the encoder's have {width}",
            hint="name the encoder that it was trained with: --encoder, --weights",
        )
    lm = load_lm(config.lm.name, config.lm.dtype, config.lm.quantized)
    if lm.config.hidden_size != published.hidden:
        raise UsageError(
            f"{source} was trained with a language model of width {published.hidden}, and {config.lm.name!r} has "
            f"{lm.config.hidden_size}",
            hint="name the right one: --set lm.name=facebook/opt-350m, -1.3b, -2.7b or -6.7b",
        )
    digest = digest_tensors(lm.state_dict())
    load_text_format(config.lm.name, lm)
    config = config.resolved(lm.config.num_hidden_layers)
    model = build_model(config, lm, width)
    try:
        model.load_trainable(published.tensors)
    except ValueError as error:
        raise UsageError(
            f"{source} does not fit {config.lm.name!r}: {error}",
            hint="name the one that it was trained with",
        ) from error
    folder.begin(
        config,
        {
            "data": data,
            "modality": modality,
            "features": dict(features),
            "width": width,
            "lm": digest,
            "epalm": __version__,
            "imported": {"file": source.name, "sha256": digest_file(source), "epoch": published.epoch},
        },
    )
    folder.save_only(model.trainable_tensors(), step=0)
    folder.finish()


def _is_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], torch.Tensor)


def _renamed(model: Tensors) -> Tensors:
    """The tensors by the names of a run's. Raises ValueError."""
    found: Tensors = {}
    layers: Tensors = {}
    for name, tensor in model.items():
        own = name if _CONNECTOR.fullmatch(name) else ""
        if name.startswith(_PROMPT) and name.removeprefix(_PROMPT) in _PROMPT_NAMES:
            own = f"prompt.{_PROMPT_NAMES[name.removeprefix(_PROMPT)]}"
        elif adapter := _ADAPTER.fullmatch(name):
            block, place, side, kind = adapter.groups()
            own = f"adapters.{int(block)}.{_ADAPTER_NAMES[place]}.{_ADAPTER_NAMES[side]}.{kind}"
        if not own:
            raise ValueError(f"it holds {name!r}, which no variant has")
        if own in found and not torch.equal(found[own], tensor):
            raise ValueError(f"it holds two different tensors for {own}")
        (layers if own == name else found)[own] = tensor
    count = 1 + max((int(name.split(".")[1]) for name in layers), default=0)
    for kind, dimensions in (("weight", 2), ("bias", 1)):
        names = [f"connector.{layer}.{kind}" for layer in range(count)]
        if absent := [name for name in names if name not in layers]:
            raise ValueError(f"it lacks {absent[0]}")
        if {(layers[name].ndim, *layers[name].shape) for name in names} != {(dimensions, *layers[names[0]].shape)}:
            raise ValueError("the connector's layers differ in shape")
        found[f"connector.{kind}"] = torch.stack([layers[name] for name in names])
    if found["connector.bias"].shape != found["connector.weight"].shape[:2]:
        raise ValueError("the connector's shapes do not fit each other")
    return {name: tensor.float() for name, tensor in found.items()}


def _overrides(config: Mapping[Any, Any], tensors: Tensors) -> tuple[str, ...]:
    """The settings. Raises ValueError: they cannot be, or call for other sizes than the tensors have."""

    def number(key: str, otherwise: int) -> int:
        value = config.get(key, otherwise)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"its config's {key} is {value!r}, no count")
        return value

    tokens, length = number("injected_hidden_states", 1), number("prompt_len", 10)
    shared = config.get("shared_connector") is not None
    layers = len(tensors["connector.weight"])
    if layers != (1 if shared else tokens):
        raise ValueError(f"it has {layers} connectors, and its settings call for {1 if shared else tokens}")
    prompt = "none" if not config.get("prompt_tuning", False) else "mlp" if config.get("mlp", True) else "plain"
    if prompt != "none" and tensors.get("prompt.embedding", torch.empty(length, 0)).shape[:1] != (length,):
        raise ValueError(f"it has another prompt than the {length} vectors of its settings")
    adapted = bool(config.get("use_adapters", False))
    settings = {
        "model.attention": "reference",
        "model.tokens": tokens,
        "model.start": number("start_layer_idx", 0),
        "model.end": number("end_layer_idx", 0),
        "model.connector": "shared" if shared else "separate",
        "model.prompt": prompt,
        "model.prompt_length": max(1, length if "prompt.embedding" in tensors else 1),
        "model.deep_prompt": "false",
        "model.adapters": "bottleneck" if adapted else "none",
        "decode.num_beams": max(1, number("num_beams", 1)),
        "decode.max_length": max(2, number("max_length", 30)),
    }
    if adapted:
        settings["model.adapter_factor"] = config["adapter_config"]["mlp"].get("downsample_factor", 4)
    if config.get("special_answer_token") is not None:
        settings["data.tasks"] = "['qa']"
    return tuple(f"{key}={value}" for key, value in settings.items())


def _refuse_others(config: Mapping[Any, Any]) -> None:
    """Raise ValueError for what the public implementation could do and this one does not."""
    form = config.get("adapter_config")
    parts = [form.get(name) if isinstance(form, Mapping) else None for name in ("attention", "mlp")]
    plain = [
        isinstance(part, Mapping)
        and part.get("adapter_type") == "normal"
        and not part.get("add_layernorm")
        and part.get("downsample_factor", 4)
        for part in parts
    ]
    sized = plain[0] == plain[1] and isinstance(plain[0], int) and plain[0] > 0
    faults = {
        "a connector that is not linear": config.get("connector_type", "linear") != "linear",
        "perceptual tokens in some blocks only (text_step)": config.get("text_step", 1) != 1
        or config.get("select_higher_step", False),
        "a deep prompt": config.get("prompt_tuning", False) and config.get("deep", False),
        f"another token than {ANSWER} behind the question": config.get("special_answer_token") not in (None, ANSWER),
        "adapters of another form (not behind both self-attention and fc2, parallel, with a norm, or of two sizes)": (
            config.get("use_adapters", False) and not sized
        ),
    }
    for part in _UNFROZEN:
        faults[f"other trained weights, which the file leaves out (unfreeze_{part})"] = config.get(f"unfreeze_{part}")
    if has := [name for name, true in faults.items() if true]:
        raise ValueError(f"it has {', '.join(has)}, which cannot be taken over: train it here instead")
