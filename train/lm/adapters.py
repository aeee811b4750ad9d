"""Small trained parts inside the blocks of the frozen language model: bottlenecks (eP-ALM, section 3) and LoRA.

Knows an OPT's blocks by the names of their parts, and nothing about training. The language model's own tensors and
their names stay as they are.

Letters: D hidden size, F down-sampling factor.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from epalm.plugins import require_package

_STD, _LIMIT = 1e-3, 2e-3
_PLACES = {"self_attn": "attention", "fc2": "feed_forward"}  # parts of a block, and the adapters behind them


class Bottleneck(nn.Module):
    """x → x + up(ReLU(down(x))), from D to D / F and back; almost the identity when drawn."""

    def __init__(self, hidden_size: int, factor: int) -> None:
        super().__init__()
        self.down = nn.Linear(hidden_size, hidden_size // factor)
        self.up = nn.Linear(hidden_size // factor, hidden_size)
        for tensor in self.parameters():
            nn.init.normal_(tensor, std=_STD)
            tensor.data.clamp_(-_LIMIT, _LIMIT)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., D) → (..., D), in the dtype of `hidden`: the trained tensors stay in their own."""

        def linear(values: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
            return functional.linear(values, layer.weight.to(hidden.dtype), layer.bias.to(hidden.dtype))

        return hidden + linear(functional.relu(linear(hidden, self.down)), self.up)


class Adapters(nn.ModuleList):
    """The adapters of every block: one behind self-attention, one behind the feed-forward's second linear."""

    def __init__(self, blocks: int, hidden_size: int, factor: int) -> None:
        super().__init__(
            nn.ModuleDict({name: Bottleneck(hidden_size, factor) for name in _PLACES.values()}) for _ in range(blocks)
        )

    def attach(self, layers: Iterable[nn.Module]) -> list[RemovableHandle]:
        """Let every block of the language model run through its adapters until the handles are removed."""
        return [
            layer.get_submodule(part).register_forward_hook(partial(_adapted, adapters.get_submodule(name)))
            for layer, adapters in zip(layers, self, strict=True)
            for part, name in _PLACES.items()
        ]


def _adapted(adapter: nn.Module, _part: nn.Module, _arguments: Any, output: Any) -> Any:
    return (adapter(output[0]), *output[1:]) if isinstance(output, tuple) else adapter(output)


def add_lora(lm: nn.Module, *, rank: int, alpha: int) -> None:
    """Put low-rank matrices beside the query and value projections of every block, float32, zero to begin with.

    LoRA (Hu et al., 2021), section 4.2: these two projections; scaled by alpha / rank. What a model got before stays.
    Raises UsageError: peft is not installed.
    """
    require_package("peft", "model.adapters lora", "lora")
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)
    inject_adapter_in_model(config, lm)
