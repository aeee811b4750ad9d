"""Models of transformers with their weights, or with random ones, and the settings of their preprocessing.

A configuration's type chooses the class, and code from a repository never runs. Knows no model by name.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from epalm.errors import UsageError
from epalm.weights import Source, from_pretrained, load, seeded

# Of a configuration: what does not decide the numbers of a frozen model's hidden states.
_IDLE = {
    "architectures", "dtype", "torch_dtype", "id2label", "label2id", "num_labels", "problem_type",
    "transformers_version", "out_features", "out_indices", "stage_names", "use_cache",
}  # fmt: skip
_IDLE_PARTS = ("dropout", "drop_path", "initializer", "init_std", "mask_", "output_", "loss")
_PREPROCESSING = ("preprocessor_config.json", "video_preprocessor_config.json", "processor_config.json")
_NORMS = ("layernorm", "post_layernorm", "norm", "layer_norm", "rms_norm")  # the last one, as the families call it


def load_model(
    source: Source,
    what: str,
    model_class: Any = None,
    *,
    default: str,
    default_config: Any = None,
    part: str = "",
    adapt: Callable[[Any], None] = lambda config: None,
    pooling: bool = False,
    read: Callable[[str], Any] | None = None,
) -> tuple[Any, Any]:
    """A model of transformers, and what its folder says of its preprocessing, {} where no folder is named.

    That is what `read`, such as `AutoImageProcessor.from_pretrained`, makes of it [default: the settings as a dict].

    `model_class` [default: what AutoModel takes for the configuration]. `default` are the weights where `source` names
    none; `default_config` is the configuration class of a random draw without a name. `part` names the configuration of
    a tower inside a model of several ("vision_config"): that tower alone is loaded. `adapt` may change the
    configuration before the model is made. Without `pooling`, a layer behind the last norm that pools is left out, as
    checkpoints of classifiers have none; where it holds the last norm itself, it stays.

    Raises:
        UsageError: see `from_pretrained`; also when the weights are another architecture's.
    """
    from transformers import MODEL_MAPPING, AutoConfig, FeatureExtractionMixin

    named = source if source.name or source.random else replace(source, name=default)
    expected = model_class.config_class if model_class else default_config
    config, settings, where = expected(), {}, ""
    if named.name:
        where = str(named.folder or named.name)
        reader = expected if model_class else AutoConfig
        config = load(named, what, lambda: reader.from_pretrained(where, trust_remote_code=False))
        config = getattr(config, part, config) if part else config
        if model_class and config.model_type != expected.model_type:
            fault = f"{named.name!r} is a {config.model_type}, no {expected.model_type}"
            raise UsageError(fault, hint="see --encoder")
    adapt(config)
    if where:
        if named.folder and not any((named.folder / name).is_file() for name in _PREPROCESSING):
            fault = f"{named.folder} does not say how the encoder's input is made: it has no {_PREPROCESSING[0]}"
            raise UsageError(fault, hint="copy it from where the weights were published")
        read = read or (lambda where: FeatureExtractionMixin.get_feature_extractor_dict(where)[0])
        settings = load(named, what, lambda: read(where))
    if not model_class:
        try:
            model_class = MODEL_MAPPING[type(config)]
        except KeyError as error:
            raise UsageError(f"transformers has no model for a {config.model_type}", hint="see --encoder") from error
    options: dict[str, Any] = {}
    if "add_pooling_layer" in inspect.signature(model_class.__init__).parameters:
        options["add_pooling_layer"] = pooling or getattr(config, "use_mean_pooling", False)
    if not source.random:
        return from_pretrained(model_class, named, what, config, **options), settings
    with seeded(source):
        return model_class(config, **options), settings


def find_blocks(model: nn.Module, count: int) -> list[nn.Module]:
    """The model's blocks: the first list of so many modules of one class. Raises UsageError: there is none."""
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and len({type(one) for one in module}) == 1:
            return list(module)
    raise UsageError(f"a {type(model).__name__} has no stack of {count} equal blocks", hint="see docs/encoders.md")


def find_norm(model: nn.Module, width: int) -> nn.Module:
    """The model's last norm: on the model itself, in its encoder, or in its pooling. Raises UsageError: there is none.

    Some models hand it to the pooled token alone.
    """
    for name, parent in model.named_modules():
        if name.count(".") > 1 or name.startswith("embeddings"):
            continue
        for norm in (getattr(parent, name, None) for name in _NORMS):
            if isinstance(norm, nn.Module) and getattr(getattr(norm, "weight", None), "shape", None) == (width,):
                return norm
    raise UsageError(f"a {type(model).__name__} has no norm behind its blocks", hint="see docs/encoders.md")


def deciding(config: Any, besides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Of a configuration, what decides the numbers: its type, and all that differs from the type's defaults.

    A setting that a later version of transformers adds is so no other encoder. `besides`: what names of settings begin
    with that do not decide either, as they are of a part of the model that is not loaded.
    """
    defaults = type(config)().to_dict()
    values = {key: value for key, value in config.to_dict().items() if key not in defaults or value != defaults[key]}
    begins, parts = ("_", *besides), _IDLE_PARTS
    idle = {key for key in values if key in _IDLE or key.startswith(begins) or any(part in key for part in parts)}
    return {"type": config.model_type, **{key: values[key] for key in sorted(values.keys() - idle)}}
