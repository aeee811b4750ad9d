"""eP-ALM: a frozen OPT with a trained connector and, by variant, a trained soft prompt or trained adapters.

Modules take plain numbers; `build_model` in `epalm.train.build` reads the settings. Does not know where features come
from.

Letters: B batch, K perceptual tokens, D_enc encoder width, T text length, V vocabulary.
"""

import torch
from torch import nn
from transformers.cache_utils import Cache

from epalm.train.bridge.connector import Connector
from epalm.train.bridge.prompt import MlpPrompt, PlainPrompt
from epalm.train.lm.adapters import Adapters
from epalm.train.lm.augmented_opt import AugmentedOPT
from epalm.train.lm.loss import Losses, wanted_positions

LORA = ".lora_"  # in the names that peft gives its tensors


def _plain(name: str) -> str:
    """peft's `lm.X.lora_A.default.weight` as `lora.X.lora_A.weight`: the adapter's own name says nothing."""
    return f"lora.{name.removeprefix('lm.').replace('.default.', '.')}"


class EpalmModel(nn.Module):
    """`lm` stays in evaluation mode, whatever mode the model is in, and frozen unless `train_lm`."""

    def __init__(
        self,
        lm: AugmentedOPT,
        connector: Connector,
        prompt: PlainPrompt | MlpPrompt | None,
        adapters: Adapters | None = None,
        *,
        train_lm: bool = False,
        encoder: nn.Module | None = None,
    ) -> None:
        """`adapters` are those that `lm` was augmented with. LoRA's tensors, where `lm` has some, are trained.

        `encoder`, raw inputs → features, is trained too; without it features are ready.
        """
        super().__init__()
        self.lm = lm.eval().requires_grad_(train_lm)
        self.connector = connector
        self.prompt = prompt
        self.adapters = adapters
        self.encoder = encoder
        for name, tensor in lm.named_parameters():
            if LORA in name:
                tensor.requires_grad_(True)

    def train(self, mode: bool = True) -> "EpalmModel":
        """Training mode for all but language model and encoder: their dropout stays off."""
        super().train(mode)
        self.lm.eval()
        if self.encoder is not None:
            self.encoder.eval()
        return self

    @property
    def connector_tokens(self) -> int:
        """K: how many perceptual tokens it takes."""
        tokens: int = self.lm.injection.tokens
        return tokens

    def trainable_tensors(self) -> dict[str, nn.Parameter]:
        """Every tensor that training changes, by the name that checkpoints use.

        `connector.*`; `prompt.*` and `adapters.*` where there are some; `lora.*`, beside a frozen language model;
        `lm.*` and `encoder.*`, all of them, where they are trained.
        """
        tensors: dict[str, nn.Parameter] = {}
        for name, tensor in self.named_parameters():
            if tensor.requires_grad:
                tensors[_plain(name) if LORA in name else name] = tensor
        return tensors

    def load_trainable(self, tensors: dict[str, torch.Tensor]) -> None:
        """Copy a checkpoint's tensors in; names and shapes must be exactly those of `trainable_tensors`.

        Raises:
            ValueError: a name is missing or too many, or a shape differs.
        """
        own = self.trainable_tensors()
        if own.keys() != tensors.keys():
            differ = sorted(own.keys() ^ tensors.keys())
            raise ValueError(f"the checkpoint is of another model: {', '.join(differ)}")
        for name, tensor in tensors.items():
            if own[name].shape != tensor.shape:
                raise ValueError(f"{name} is {tuple(tensor.shape)}, the model's is {tuple(own[name].shape)}")
            own[name].data.copy_(tensor)

    def forward(
        self,
        features: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        text_only: bool = True,
    ) -> torch.Tensor:
        """Logits (B, T, V) of the text; with `text_only=False` (B, 1 + P + T, V), the front positions first.

        `features` (B, K, D_enc), for a trained encoder its raw inputs (B, ...); `input_ids` and `attention_mask`
        (B, T), padded on either side; None: no padding.
        """
        if self.encoder is not None:
            features = self.encoder(features)
        ids, mask = self._with_front(input_ids, attention_mask)
        logits: torch.Tensor = self.lm(
            ids,
            attention_mask=mask,
            perceptual=self.connector(features.to(self.connector.weight.dtype)),
            prompt=None if self.prompt is None else self.prompt(),
            logits_to_keep=input_ids.shape[1] if text_only else 0,
        ).logits
        return logits

    def losses(
        self,
        features: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
        labels: torch.Tensor,
    ) -> Losses:
        """Loss and exactness of each sample, for ids, mask and labels (B, T) padded on the right.

        `features` as `forward` takes them.
        """
        if self.lm.injection.attention == "causal":
            # Of a text's last token nothing is predicted, and what stands behind a position changes nothing there.
            input_ids, attention_mask = input_ids[:, :-1], None
        if self.encoder is not None:
            features = self.encoder(features)
        ids, mask = self._with_front(input_ids, attention_mask)
        losses: Losses = self.lm(
            ids,
            attention_mask=mask,
            perceptual=self.connector(features.to(self.connector.weight.dtype)),
            prompt=None if self.prompt is None else self.prompt(),
            wanted=wanted_positions(labels, width=input_ids.shape[1]),
        ).losses
        return losses

    @torch.no_grad()
    def next_logits(
        self, features: torch.Tensor | None, input_ids: torch.Tensor, cache: Cache | None = None
    ) -> torch.Tensor:
        """Logits (B, V) of the token behind `input_ids` (B, T), which are without padding.

        A `cache` is filled; once it is, `input_ids` are what comes behind what it holds, and `features` (B, K, D_enc),
        which are ready ones, are not read. It is exact in `causal` mode alone.
        """
        filled = cache is not None and cache.get_seq_length() > 0
        logits: torch.Tensor = self.lm(
            input_ids if filled else self._with_front(input_ids, None)[0],
            cache=cache,
            perceptual=None if features is None else self.connector(features.to(self.connector.weight.dtype)),
            prompt=None if filled or self.prompt is None else self.prompt(),
            use_cache=cache is not None,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits

    def _with_front(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids and mask (B, 1 + P + T) with placeholders, which are real positions, in front."""
        size = (len(input_ids), self.lm.front)
        ids = torch.cat((input_ids.new_full(size, self.lm.config.pad_token_id or 0), input_ids), 1)
        if attention_mask is None:
            return ids, None
        return ids, torch.cat((attention_mask.new_ones(size), attention_mask), 1)
