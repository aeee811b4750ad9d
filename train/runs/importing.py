"""A published checkpoint as a run folder, which scoring and predicting take like a trained one.

Knows every part of this stage; what the encoder is, it is told.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epalm import __version__
from epalm.config import Config
from epalm.errors import UsageError
from epalm.fingerprint import digest_file, digest_tensors
from epalm.train.bridge.build import build_model
from epalm.train.data.text import load_text_format
from epalm.train.lm.load import load_lm
from epalm.train.runs.published import Published
from epalm.train.runs.run_folder import RunFolder


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
