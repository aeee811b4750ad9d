"""Any transformer with a `[CLS]` token as an `Encoder`: the tokens of all its blocks, taken while it runs.

Knows that blocks put out hidden states (B, N, D), `[CLS]` token at position 0; knows no model by name.
"""

import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from epalm.errors import UsageError
from epalm.extract.encoders.registry import Compute
from epalm.extract.inputs.preprocess import Input
from epalm.weights import Source, freeze, from_pretrained, load, seeded

TOKEN_RULE = "final LayerNorm of each block's output at position 0"


class ClsTokens:
    """Hooks that keep each block's output at position 0 (method: `[CLS]` tokens of eP-ALM).

    Only position 0 is kept, so memory does not grow with the number of patches.
    """

    def __init__(self, blocks: Iterable[nn.Module], norm: nn.Module) -> None:
        self._norm = norm
        self._of = threading.local()  # several threads may run the model, each on a batch of its own
        for block in blocks:
            block.register_forward_hook(self._take)

    def _take(self, _block: nn.Module, _inputs: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output  # (B, N, D)
        self._of.taken.append(hidden[:, 0].clone())  # a view would keep all of it

    def of(self, run: Callable[[], object]) -> torch.Tensor:
        """The tokens of every block, shallow to deep (B, depth, D), of one forward pass, `run`.

        Each is the model's final LayerNorm applied to the block's output, not for the last block only.
        """
        self._of.taken = []
        run()
        tokens: torch.Tensor = self._norm(torch.stack(self._of.taken, dim=1))
        self._of.taken = []
        return tokens


class TransformerEncoder:
    """A frozen model whose `blocks` give the tokens; it can be trained, too (see `TrainableEncoder`).

    `architecture` is all that decides its numbers beside weights and precision, as JSON. `run` is its forward pass
    [default: the model itself]. With `mean_of_frames` the model reads pictures and the encoder clips, whose frames
    know nothing of each other or of their order: their tokens are averaged.
    """

    def __init__(
        self,
        kind: str,
        model: Any,
        blocks: Iterable[nn.Module],
        norm: nn.Module,
        reads: Input,
        compute: Compute,
        architecture: dict[str, Any],
        *,
        run: Callable[[torch.Tensor], object] | None = None,
        mean_of_frames: bool = False,
    ) -> None:
        blocks = list(blocks)
        self.kind, self.modality, self.input = kind, reads.modality, reads
        self.depth, self.width = len(blocks), int(norm.weight.shape[0])  # type: ignore[index]
        self.device, self.precision = compute.device, compute.precision
        rule = f"{TOKEN_RULE}, mean over frames" if mean_of_frames else TOKEN_RULE
        self._description = {"kind": kind, "architecture": architecture, "weights": freeze(model), "token": rule}
        if compute.device.type == "cuda":
            model.to(memory_format=torch.channels_last)  # patches are cut by a convolution
        if compute.compiled:
            for block in blocks:
                block.forward = torch.compile(block.forward)  # alone: hooks stay outside of what is compiled
        self.module: nn.Module = model.to(compute.device)
        self._run, self._mean = run or self.module, mean_of_frames
        self._tokens = ClsTokens(blocks, norm)

    def describe(self) -> dict[str, Any]:
        """See `Encoder`."""
        return dict(self._description)

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """Inputs (B, ...), as `input` normalises them, → (B, depth, D)."""
        inputs = batch.to(self.device)
        pictures = inputs.flatten(0, 1) if self._mean else inputs
        lower = self.precision != "float32"
        with torch.autocast(self.device.type, getattr(torch, self.precision)) if lower else nullcontext():
            tokens = self._tokens.of(lambda: self._run(pictures))
        return tokens.unflatten(0, inputs.shape[:2]).mean(dim=1) if self._mean else tokens


def load_model(
    source: Source,
    what: str,
    model_class: Any,
    *,
    default: str,
    adapt: Callable[[Any], None] = lambda config: None,
) -> tuple[Any, dict[str, Any]]:
    """A model of transformers, and what its folder says of its preprocessing.

    `default` are the weights where `source` names none; `adapt` may change the configuration before the model is made.

    Raises:
        UsageError: see `from_pretrained`; also when the weights are another architecture's.
    """
    from transformers import FeatureExtractionMixin

    named = source if source.name or source.random else replace(source, name=default)
    config_class = model_class.config_class
    config, settings = config_class(), dict[str, Any]()
    if named.name:
        where = str(named.folder or named.name)
        config = load(named, what, lambda: config_class.from_pretrained(where))
        if config.model_type != config_class.model_type:
            fault = f"{named.name!r} is a {config.model_type}, no {config_class.model_type}"
            raise UsageError(fault, hint="see --encoder")
        settings = load(named, what, lambda: FeatureExtractionMixin.get_feature_extractor_dict(where)[0])
    adapt(config)
    if not source.random:
        return from_pretrained(model_class, named, what, config), settings
    with seeded(source):
        return model_class(config), settings
