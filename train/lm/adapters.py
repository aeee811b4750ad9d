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
        handles: list[RemovableHandle] = []
        for layer, block in zip(layers, self, strict=True):
            assert isinstance(block, BlockAdapters)
            places = {"self_attn": block.attention, "fc2": block.feed_forward}
            handles += [layer.get_submodule(name).register_forward_hook(_behind(one)) for name, one in places.items()]
        return handles


def _linear(values: torch.Tensor, layer: nn.Linear) -> torch.Tensor:
    return functional.linear(values, layer.weight.to(values.dtype), layer.bias.to(values.dtype))


def _behind(adapter: Bottleneck) -> Any:
    def hook(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        return (adapter(output[0]), *output[1:]) if isinstance(output, tuple) else adapter(output)

    return hook
