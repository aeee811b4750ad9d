"""Small trained parts inside the blocks of the frozen language model: bottlenecks (eP-ALM, section 3) and LoRA.

Knows a block's parts by the profile, and nothing about training. The language model's own tensors and their names stay
as they are.

Letters: D hidden size, F down-sampling factor.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from epalm.errors import UsageError
from epalm.plugins import require_package
from epalm.train.lm.profile import Profile, find_profile

_STD, _LIMIT = 1e-3, 2e-3
_PLACES = ("attention", "feed_forward")  # parts of a block that have an adapter behind them


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
    """The adapters of every block: one behind self-attention, one behind the feed-forward part's last linear."""

    def __init__(self, blocks: int, hidden_size: int, factor: int) -> None:
        super().__init__(
            nn.ModuleDict({name: Bottleneck(hidden_size, factor) for name in _PLACES}) for _ in range(blocks)
        )

    def attach(self, blocks: Iterable[nn.Module], profile: Profile) -> list[RemovableHandle]:
        """Let every block of the language model run through its adapters until the handles are removed.

        Raises UsageError: its parts are not known.
        """
        if profile.feed_forward is None:
            raise UsageError(
                f"the language model is of family {profile.family}, whose feed-forward part is unknown here: there is "
                "no place for adapters",
                hint="--set model.adapters=none",
            )
        places = dict(zip(_PLACES, (profile.attention, profile.feed_forward), strict=True))
        return [
            block.get_submodule(part).register_forward_hook(partial(_adapted, adapters.get_submodule(name)))
            for block, adapters in zip(blocks, self, strict=True)
            for name, part in places.items()
        ]


def _adapted(adapter: nn.Module, _part: nn.Module, _arguments: Any, output: Any) -> Any:
    return (adapter(output[0]), *output[1:]) if isinstance(output, tuple) else adapter(output)


def add_lora(lm: PreTrainedModel, *, rank: int, alpha: int) -> None:
    """Put low-rank matrices beside the query and value projections of every block, float32, zero to begin with.

    LoRA (Hu et al., 2021), section 4.2: these two projections, or what makes them in one; scaled by alpha / rank. What
    a model got before stays. Raises UsageError: peft is not installed, or the projections are not known.
    """
    require_package("peft", "model.adapters lora", "lora")
    from peft import LoraConfig, inject_adapter_in_model

    profile = find_profile(lm)
    if not profile.query_value:
        raise UsageError(
            f"the language model is of family {profile.family}, whose query and value projections are unknown here",
            hint="--set model.adapters=none",
        )
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(profile.query_value), lora_dropout=0.0)
    inject_adapter_in_model(config, lm)
