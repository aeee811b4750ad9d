"""Checkpoints of the paper's public implementation: their tensors and settings under this project's names.

Reads the trained part of a model as it was published: a pickle of tensors, loaded as such and never as code. Knows
names, shapes and settings; does not know encoders or run folders. Such models were trained with `reference` attention.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from epalm.errors import UsageError
from epalm.train.data.text import ANSWER

Tensors = dict[str, torch.Tensor]
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
_PLACES = {"self_attn": "attention", "fc2.1": "feed_forward"}
_LAYERS = {"0": "down", "2": "up"}
_TRAINED_ELSEWHERE = (
    "unfreeze_text_model",
    "unfreeze_vision_model",
    "unfreeze_text_layer_norm",
    "unfreeze_vision_layer_norm",
)


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
    tensors = _renamed(path, {name.removeprefix("module."): tensor for name, tensor in model.items()})
    wanted, overrides = _settings(path, config, tensors)
    if tensors.keys() != wanted:
        lacking, further = sorted(wanted - tensors.keys()), sorted(tensors.keys() - wanted)
        told = f"lacks {lacking[0]}" if lacking else f"has {further[0]}, which its settings do not account for"
        raise UsageError(f"{path} {told}", hint="the file is damaged, or its config is of another run")
    weights = tensors["connector.weight"]
    if weights.ndim != 3 or tensors["connector.bias"].shape != weights.shape[:2]:
        raise UsageError(f"{path}: the connector's shapes do not fit each other", hint="the file is damaged")
    epoch = content.get("epoch")
    width, hidden = int(weights.shape[2]), int(weights.shape[1])
    return Published(tuple(overrides), tensors, width, hidden, epoch if isinstance(epoch, int) else None)


def _is_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], torch.Tensor)


def _renamed(path: Path, model: Tensors) -> Tensors:
    found: Tensors = {}
    connectors: dict[str, dict[int, torch.Tensor]] = {"weight": {}, "bias": {}}
    for name, tensor in model.items():
        if layer := re.fullmatch(r"connector\.(\d{1,4})\.(weight|bias)", name):
            connectors[layer[2]][int(layer[1])] = tensor
        elif name.startswith(_PROMPT) and (part := _PROMPT_NAMES.get(name.removeprefix(_PROMPT))):
            found[f"prompt.{part}"] = tensor
        elif adapter := _ADAPTER.fullmatch(name):
            block, place, layer_number, kind = adapter.groups()
            own = f"adapters.{int(block)}.{_PLACES[place]}.{_LAYERS[layer_number]}.{kind}"
            if own in found and not torch.equal(found[own], tensor):
                raise UsageError(f"{path} holds two different tensors for {own}", hint="the file is damaged")
            found[own] = tensor
        else:
            raise UsageError(
                f"{path} holds {name!r}, which no variant has",
                hint="connectors, prompts and adapters behind self-attention and fc2 can be taken over",
            )
    for kind, layers in connectors.items():
        for place in range(max([*connectors["weight"], *connectors["bias"]], default=0) + 1):
            if place not in layers:
                raise UsageError(f"{path} lacks connector.{place}.{kind}", hint="the file is damaged")
        if len({tensor.shape for tensor in layers.values()}) > 1:
            raise UsageError(f"{path}: the connector's layers differ in shape", hint="the file is damaged")
        found[f"connector.{kind}"] = torch.stack([layers[place] for place in sorted(layers)])
    return {name: tensor.float() for name, tensor in found.items()}


def _settings(path: Path, config: Mapping[Any, Any], tensors: Tensors) -> tuple[set[str], list[str]]:
    """The names that the settings call for, and the settings as overrides."""

    def number(key: str, otherwise: int) -> int:
        value = config.get(key, otherwise)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise UsageError(f"{path}: its config's {key} is {value!r}, no count", hint="the file is damaged")
        return value

    _refuse_others(path, config)
    tokens = number("injected_hidden_states", 1)
    shared = config.get("shared_connector") is not None
    start, end = number("start_layer_idx", 0), number("end_layer_idx", 0)
    layers = len(tensors["connector.weight"])
    if layers != (1 if shared else tokens):
        raise UsageError(
            f"{path} has {layers} connectors, and its settings call for {1 if shared else tokens}",
            hint="the file is damaged, or its config is of another run",
        )
    wanted = {"connector.weight", "connector.bias"}
    form, adapted = "none", bool(config.get("use_adapters", False))
    if config.get("prompt_tuning", False):
        form = "mlp" if config.get("mlp", True) else "plain"
        names = _PROMPT_NAMES.values() if form == "mlp" else ("embedding",)
        wanted |= {f"prompt.{name}" for name in names}
        length = number("prompt_len", 10)
        if "prompt.embedding" in tensors and tensors["prompt.embedding"].shape[:1] != (length,):
            raise UsageError(
                f"{path} has another prompt than the {length} vectors of its settings",
                hint="the file is damaged, or its config is of another run",
            )
    overrides = ["model.attention=reference", f"model.tokens={tokens}", f"model.start={start}", f"model.end={end}"]
    overrides += [f"model.connector={'shared' if shared else 'separate'}", f"model.prompt={form}"]
    overrides += [f"model.prompt_length={max(1, number('prompt_len', 10))}", "model.deep_prompt=false"]
    overrides += [f"model.adapters={'bottleneck' if adapted else 'none'}"]
    overrides += [f"decode.num_beams={max(1, number('num_beams', 1))}"]
    overrides += [f"decode.max_length={max(2, number('max_length', 30))}"]
    if adapted:
        blocks = {name.split(".")[1] for name in tensors if name.startswith("adapters.")}
        parts = [(p, s, k) for p in _PLACES.values() for s in _LAYERS.values() for k in ("weight", "bias")]
        wanted |= {f"adapters.{block}.{place}.{side}.{kind}" for block in blocks for place, side, kind in parts}
        factor = config["adapter_config"]["mlp"].get("downsample_factor", 4)
        overrides += [f"model.adapter_factor={factor}"]
    if config.get("special_answer_token") is not None:
        overrides += ["data.tasks=['qa']"]
    return wanted, overrides


def _refuse_others(path: Path, config: Mapping[Any, Any]) -> None:
    """Raise UsageError for what the public implementation could do and this one does not."""
    faults = []
    if config.get("connector_type", "linear") != "linear":
        faults.append(f"a connector of type {config['connector_type']!r}")
    if config.get("text_step", 1) != 1 or config.get("select_higher_step", False):
        faults.append("perceptual tokens in some blocks only (text_step)")
    if config.get("prompt_tuning", False) and config.get("deep", False):
        faults.append("a deep prompt")
    if config.get("special_answer_token", None) not in (None, ANSWER):
        faults.append(f"another token than {ANSWER} behind the question")
    faults += [
        f"other trained weights, which the file leaves out ({key})" for key in _TRAINED_ELSEWHERE if config.get(key)
    ]
    if config.get("use_adapters", False):
        faults += _adapter_faults(config.get("adapter_config"))
    if faults:
        raise UsageError(f"{path} has {', '.join(faults)}: this cannot be taken over", hint="train it here instead")


def _adapter_faults(form: Any) -> list[str]:
    if not isinstance(form, Mapping):
        form = {}
    parts = [part for place in ("attention", "mlp") if isinstance(part := form.get(place), Mapping)]
    if len(parts) < 2:
        return ["adapters that are not behind both self-attention and fc2"]
    factors = [part.get("downsample_factor", 4) for part in parts]
    plain = all(part.get("adapter_type") == "normal" and not part.get("add_layernorm") for part in parts)
    fine = plain and factors[0] == factors[1] and isinstance(factors[0], int) and factors[0] > 0
    return [] if fine else ["adapters of another form (parallel, with a norm, or of two sizes)"]
