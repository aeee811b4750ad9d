"""eP-ALM: a frozen language model with a trained bridge and, by variant, a trained soft prompt or trained adapters.

Modules take plain numbers; `build_model` reads the settings. Does not know where features come from.

Letters: B batch, L layers of the encoder, T tokens of a layer, D_enc encoder width, G groups, F front positions,
D hidden size, E word-embedding width, P prompt length, N text length, V vocabulary.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers.cache_utils import Cache

from epalm.train.lm.adapters import Adapters
from epalm.train.lm.injected_lm import InjectedLM
from epalm.train.lm.loss import Losses, label_positions

_PLAIN = "lm.plain."  # before the names of the language model's own tensors
_LORA = ".lora_"  # in the names that peft gives its tensors


class Prompt(nn.Module):
    """The soft prompt (eP-ALM, section 3): P trained vectors of width E before the text.

    A deep one has P for each of `blocks`, in place of the hidden states at the prompt's positions on entry to it. They
    are free, one tensor (blocks · P, E), or, with `mlp`, behind linear → tanh → linear, all of width E.
    """

    def __init__(self, length: int, width: int, *, blocks: int = 1, mlp: bool = False) -> None:
        super().__init__()
        self.length = length
        self.embedding = nn.Parameter(torch.randn(blocks * length, width))
        self.mlp = mlp
        if mlp:
            self.inner, self.outer = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self) -> tuple[torch.Tensor, ...]:
        """The prompt (P, E) of each block that has one."""
        vectors: torch.Tensor = self.outer(torch.tanh(self.inner(self.embedding))) if self.mlp else self.embedding
        prompts: tuple[torch.Tensor, ...] = vectors.split(self.length)
        return prompts


class EpalmModel(nn.Module):
    """`lm` stays in evaluation mode, whatever mode the model is in, and frozen unless `train_lm`."""

    def __init__(
        self,
        lm: InjectedLM,
        connector: nn.Module,
        prompt: Prompt | None,
        adapters: Adapters | None = None,
        *,
        train_lm: bool = False,
        encoder: nn.Module | None = None,
        layers: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        """`connector` is the bridge, (B, L, T, D_enc) → (B, G, F, D), or to what `lm` has an addition for.

        L is `layers` [as many as groups]. `adapters` are those that `lm` has already. `encoder`, raw inputs → rows, is
        trained too; without it rows are given. LoRA's tensors in `lm` are trained. `dropout` is of what the bridge
        makes, in training.
        """
        super().__init__()
        self.lm: InjectedLM = lm.eval().requires_grad_(train_lm)
        self.connector = connector
        self.prompt = prompt
        self.adapters = adapters
        self.encoder = encoder
        self.layers, self.dropout = lm.injection.groups if layers is None else layers, dropout
        for name, tensor in lm.named_parameters():
            if _LORA in name:
                tensor.requires_grad_(True)

    def train(self, mode: bool = True) -> "EpalmModel":
        """Training mode for all but language model and encoder: their dropout stays off."""
        super().train(mode)
        for frozen in (self.lm, self.encoder):
            if frozen is not None:
                frozen.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Where its trained tensors are."""
        return next(self.connector.parameters()).device

    def trainable_tensors(self) -> dict[str, nn.Parameter]:
        """Every tensor that training changes, by the name that checkpoints use.

        `connector.*`; `prompt.*` and `adapters.*` where there are some; `lora.*`, beside a frozen language model;
        `lm.*` and `encoder.*`, all of them, where they are trained.
        """
        return {_checkpoint_name(name): tensor for name, tensor in self.named_parameters() if tensor.requires_grad}

    def load_trainable(self, tensors: dict[str, torch.Tensor]) -> None:
        """Copy a checkpoint's tensors in; names and shapes must be exactly those of `trainable_tensors`.

        Raises ValueError: a name is missing or too many, or a shape differs.
        """
        own = self.trainable_tensors()
        shapes, given = ({(name, tensor.shape) for name, tensor in some.items()} for some in (own, tensors))
        if differ := sorted({name for name, _ in shapes ^ given}):
            raise ValueError(f"the checkpoint is of another model: {', '.join(differ)}")
        for name, tensor in tensors.items():
            own[name].data.copy_(tensor)

    def forward(
        self, rows: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits (B, N, V) of the text.

        `rows` (B, L, T, D_enc), for a trained encoder its raw inputs (B, ...); `input_ids` and `attention_mask` (B, N),
        padded on either side; None: no padding.
        """
        order = None
        if attention_mask is not None:  # padding goes behind: before the text it would count in sliding windows
            order = attention_mask.argsort(dim=1, descending=True, stable=True)
            input_ids, attention_mask = input_ids.gather(1, order), attention_mask.gather(1, order)
        inputs = self._with_front(self.perceive(rows), input_ids, attention_mask)
        logits: torch.Tensor = self.lm(**inputs, logits_to_keep=input_ids.shape[1])
        return logits if order is None else logits.gather(1, order.argsort(1).unsqueeze(2).expand_as(logits))

    def losses(
        self,
        rows: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        labels: torch.Tensor,
        smoothing: float = 0.0,
    ) -> Losses:
        """Loss and exactness of each sample, for ids, mask and labels (B, N) padded on the right."""
        if self.lm.injection.attention == "causal":
            # Of a text's last token nothing is predicted, and what stands behind a position changes nothing there.
            input_ids, attention_mask = input_ids[:, :-1], None
        labelled = label_positions(labels, width=input_ids.shape[1])
        inputs = self._with_front(self.perceive(rows), input_ids, attention_mask)
        return self.lm.losses(labelled, **inputs, smoothing=smoothing)

    def perceive(self, rows: torch.Tensor) -> torch.Tensor:
        """What the bridge makes of `rows`: groups (B, G, F, D), or what it adds something of (B, ...)."""
        perceived: torch.Tensor = self.connector(rows if self.encoder is None else self.encoder(rows))
        return functional.dropout(perceived, self.dropout, self.training)

    def begin_step(self, seed: int, step: int, process: int = 0) -> None:
        """From here on all that is drawn is a pure function of these; what a bridge draws, of seed and step alone."""
        mixed = np.random.SeedSequence([seed, step, process]).generate_state(1, np.uint64)
        torch.manual_seed(int(mixed[0] >> np.uint64(1)))
        for part in self.connector.modules():
            if draw := getattr(part, "draw", None):
                draw(np.random.default_rng([seed, step]))

    @torch.no_grad()
    def next_logits(self, perceived: torch.Tensor, input_ids: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        """Logits (B, V) of the token behind `input_ids` (B, N), which are without padding; for what `perceive` made.

        A `cache` is filled; once it is, `input_ids` are what comes behind what it holds. It is exact in `causal` mode
        alone.
        """
        inputs: dict[str, Any] = {"input_ids": input_ids, "groups": perceived}
        if cache is None or not cache.get_seq_length():
            inputs = self._with_front(perceived, input_ids, None)
        logits: torch.Tensor = self.lm(**inputs, cache=cache, logits_to_keep=1)
        return logits[:, -1]

    def _with_front(
        self, perceived: torch.Tensor, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> dict[str, Any]:
        """What the language model takes: ids and mask (B, F + P + N) with placeholders in front, tokens and prompt."""
        size = (len(input_ids), self.lm.front_of(perceived) + self.lm.prompt_length)
        ids = torch.cat((input_ids.new_zeros(size), input_ids), 1)
        mask = None if attention_mask is None else torch.cat((attention_mask.new_ones(size), attention_mask), 1)
        prompt = None if self.prompt is None else self.prompt()
        return {"input_ids": ids, "attention_mask": mask, "groups": perceived, "prompt": prompt}


def _checkpoint_name(name: str) -> str:
    """A plain model's `lm.plain.X` as `lm.X`, and peft's `X.lora_A.default.weight` in it as `lora.X.lora_A.weight`."""
    if not name.startswith(_PLAIN):
        return name
    name = name.removeprefix(_PLAIN)
    return f"lora.{name.replace('.default.', '.')}" if _LORA in name else f"lm.{name}"
