"""Bottleneck adapters: small trained detours inside every block of the frozen language model. eP-ALM, section 3.

Knows an OPT's blocks by the names of their parts, and nothing about training. `Adapters` holds the trained tensors;
the language model's own tensors and their names stay as they are.

Letters: D hidden size, F down-sampling factor.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

_STD = 1e-3
_LIMIT = 2e-3


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
        inner = functional.relu(_linear(hidden, self.down))
        return hidden + _linear(inner, self.up)


class BlockAdapters(nn.Module):
    """The two adapters of one block."""

    def __init__(self, hidden_size: int, factor: int) -> None:
        super().__init__()
        self.attention = Bottleneck(hidden_size, factor)  # behind self-attention
        self.feed_forward = Bottleneck(hidden_size, factor)  # behind the feed-forward's second linear


class Adapters(nn.ModuleList):
    """The adapters of every block."""

    def __init__(self, blocks: int, hidden_size: int, factor: int) -> None:
        if hidden_size < factor:
            raise ValueError(f"a hidden size of {hidden_size} cannot be divided by {factor}")
        super().__init__(BlockAdapters(hidden_size, factor) for _ in range(blocks))

    def attach(self, layers: Iterable[nn.Module]) -> list[RemovableHandle]:
        """Let every block of the language model run through its adapters until the handles are removed."""
        handles = []
        for layer, block in zip(layers, self, strict=True):
            attention, second = layer.get_submodule("self_attn"), layer.get_submodule("fc2")
            assert isinstance(block, BlockAdapters)
            handles.append(attention.register_forward_hook(_behind_attention(block.attention)))
            handles.append(second.register_forward_hook(_behind_linear(block.feed_forward)))
        return handles


def _linear(values: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    return functional.linear(values, layer.weight.to(values.dtype), layer.bias.to(values.dtype))


def _behind_attention(adapter: Bottleneck) -> Any:
    def hook(_module: nn.Module, _arguments: Any, output: tuple[Any, ...]) -> tuple[Any, ...]:
        return adapter(output[0]), *output[1:]

    return hook


def _behind_linear(adapter: Bottleneck) -> Any:
    def hook(_module: nn.Module, _arguments: Any, output: torch.Tensor) -> torch.Tensor:
        adapted: torch.Tensor = adapter(output)
        return adapted

    return hook
