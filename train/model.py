"""eP-ALM: a frozen OPT, a trained connector and a trained soft prompt.

Modules take plain numbers; `build_model` in `epalm.train.build` reads the settings. Does not know where features come
from.

Letters: B batch, K perceptual tokens, D_enc encoder width, T text length, V vocabulary.
"""

from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from epalm.train.augmented_opt import AugmentedOPT
from epalm.train.connector import Connector
from epalm.train.prompt import MlpPrompt, PlainPrompt


class EpalmModel(nn.Module):
    """`lm` stays frozen and in evaluation mode, whatever mode the model is in."""

    def __init__(self, lm: AugmentedOPT, connector: Connector, prompt: PlainPrompt | MlpPrompt | None) -> None:
        super().__init__()
        self.lm = lm.eval().requires_grad_(False)
        self.connector = connector
        self.prompt = prompt

    def train(self, mode: bool = True) -> "EpalmModel":
        """Training mode for all but the language model: its dropout stays off."""
        super().train(mode)
        self.lm.eval()
        return self

    @property
    def connector_tokens(self) -> int:
        """K: how many perceptual tokens it takes."""
        tokens: int = self.lm.injection.tokens
        return tokens

    def trainable_tensors(self) -> dict[str, nn.Parameter]:
        """Every tensor that training changes, by the name that checkpoints use."""
        tensors: dict[str, nn.Parameter] = {
            "connector.weight": self.connector.weight,
            "connector.bias": self.connector.bias,
        }
        if self.prompt is not None:
            tensors["prompt.embedding"] = self.prompt.embedding
        if isinstance(self.prompt, MlpPrompt):
            for name, layer in (("inner", self.prompt.inner), ("outer", self.prompt.outer)):
                tensors |= {f"prompt.{name}.{key}": tensor for key, tensor in layer.named_parameters()}
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

        `features` (B, K, D_enc), `input_ids` and `attention_mask` (B, T), padded on either side; None: no padding.
        """
        ids, mask = self._with_front(input_ids, attention_mask)
        logits: torch.Tensor = self.lm(
            ids,
            attention_mask=mask,
            perceptual=self.connector(features),
            prompt=self._prompt(len(ids)),
            logits_to_keep=input_ids.shape[1] if text_only else 0,
        ).logits
        return logits

    @torch.no_grad()
    def generate(
        self,
        features: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        num_beams: int = 3,
        max_length: int = 30,
        use_cache: bool | None = None,
        **options: Any,
    ) -> torch.Tensor:
        """Token ids (B, ≤ max_length): the given ids continued up to `</s>`, then padding.

        Pad on the left. `max_length` counts the given ids (padding included), never the prompt. The key/value cache
        is used in `causal` mode; `reference` recomputes all at every step. `options` go to transformers' `generate`.
        """
        cached = self.lm.injection.attention == "causal"
        ids, mask = self._with_front(input_ids, attention_mask)
        settings = GenerationConfig(
            max_length=self.lm.front + max_length,
            num_beams=num_beams,
            do_sample=options.pop("do_sample", False),
            use_cache=cached if use_cache is None else use_cache and cached,
            bos_token_id=self.lm.config.bos_token_id,
            eos_token_id=self.lm.config.eos_token_id,
            pad_token_id=self.lm.config.pad_token_id,
            **options,
        )
        given = torch.ones_like(ids) if mask is None else mask
        produced: torch.Tensor = self.lm.generate(
            ids,
            generation_config=settings,
            attention_mask=given,
            perceptual=self.connector(features),
            prompt=self._prompt(len(ids)),
        )
        return produced[:, self.lm.front :]

    def _prompt(self, batch: int) -> torch.Tensor | None:
        return None if self.prompt is None else self.prompt().expand(batch, -1, -1)

    def _with_front(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids and mask (B, 1 + P + T) with placeholders, which are real positions, in front."""
        size = (len(input_ids), self.lm.front)
        ids = torch.cat((input_ids.new_full(size, self.lm.config.pad_token_id or 0), input_ids), 1)
        if attention_mask is None:
            return ids, None
        return ids, torch.cat((attention_mask.new_ones(size), attention_mask), 1)
