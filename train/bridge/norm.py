"""RMSNorm behind a bridge: tokens as large as the words that the language model reads.

Models whose blocks norm what they put out, not what they read, add a token to their hidden states as large as it is.

Letters: B batch, G groups, F front positions, D hidden size.
"""

import torch
from torch import nn
from transformers import PreTrainedModel

from epalm.train.lm.profile import find_profile

_WORDS = 16  # of the vocabulary, whose size is taken for that of all


class Normed(nn.Module):
    """A bridge whose tokens (B, G, F, D) are brought to a root mean square of `scale`, from where training goes on."""

    def __init__(self, bridge: nn.Module, hidden_size: int, scale: float) -> None:
        super().__init__()
        self.bridge, self.norm = bridge, nn.RMSNorm(hidden_size)
        nn.init.constant_(self.norm.weight, scale)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """As the bridge's."""
        tokens: torch.Tensor = self.norm(self.bridge(rows))
        return tokens


@torch.no_grad()
def embedding_rms(lm: PreTrainedModel) -> float:
    """The root mean square of what enters the first block, scaled as the model does; 1 where it has no weights."""
    if lm.device.type == "meta":
        return 1.0
    entered: list[torch.Tensor] = []
    block = lm.get_submodule(f"{find_profile(lm).blocks}.0")
    handle = block.register_forward_pre_hook(lambda _block, inputs: entered.append(inputs[0]))
    try:
        lm(
            input_ids=torch.linspace(0, lm.config.vocab_size - 1, _WORDS, device=lm.device).long()[None],
            use_cache=False,
        )
    finally:
        handle.remove()
    return float(entered[0].float().square().mean().sqrt())
