"""OPT with one reserved position in front, which carries a perceptual token through the last blocks.

Positions: 0 is the perceptual one, then P of the soft prompt, then the text. The front position exists in *every*
block, so shapes, and with them the key/value caches, are the same everywhere and the stock `generate()` works; below
`start` nobody sees it. Adapters are hooks on the blocks: OPT's own tensors keep their names. Knows nothing about
connectors, encoders or training. Method: eP-ALM (ICCV 2023), section 3.

Letters: B batch, K perceptual tokens, D hidden size, E word-embedding width, P prompt length, T text, V vocabulary.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import OPTForCausalLM
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.opt.modeling_opt import OPTDecoderLayer

from epalm.train.adapters import Adapters
from epalm.train.injection import Injection, attention_masks

# transformers calls its key/value cache by this name from 5.24 on, and by the other before.
_CACHE = "cache" if "cache" in inspect.signature(OPTDecoderLayer.forward).parameters else "past_key_values"


class AugmentedOPT(OPTForCausalLM):
    """OPT whose `forward` takes perceptual tokens and a soft prompt; `augment` must be called once before."""

    injection: Injection
    prompt_length: int

    def augment(self, injection: Injection, prompt_length: int, adapters: Adapters | None = None) -> None:
        """Set where perceptual tokens enter, how many prompt vectors stand before the text, and the adapters.

        What was set before is replaced.
        """
        for handle in getattr(self, "adapted", ()):
            handle.remove()
        self.adapted = adapters.attach(self.model.decoder.layers) if adapters is not None else []
        self.injection = injection
        self.prompt_length = prompt_length
        self.plan = [injection.token_of(block) for block in range(self.config.num_hidden_layers)]

    @property
    def front(self) -> int:
        """Positions before the text: the perceptual one and the prompt's."""
        return 1 + self.prompt_length

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        perceptual: torch.Tensor | None = None,
        prompt: Sequence[torch.Tensor] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        past_key_values: Cache | None = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, positions, V) for `input_ids` (B, 1 + P + T), whose first 1 + P ids are placeholders.

        `perceptual` (B, K, D) and `prompt`, (P, E) for the first block or for each, are read when those positions
        are; later calls with a filled `cache` (or `past_key_values`, its older name) do not need them.
        `attention_mask` (B, past + positions) is 1 for all but padding; None means no padding. `logits_to_keep` > 0
        computes only the last so many positions' logits.
        """
        decoder = self.model.decoder
        cache = past_key_values if cache is None else cache
        past = cache.get_seq_length() if cache is not None else 0
        real = None if attention_mask is None else attention_mask.bool()
        hidden = self._embed(input_ids, real, prompt, past)
        without_front, with_front = attention_masks(
            hidden.shape[1], past, real, self.injection.attention, dtype=hidden.dtype, device=hidden.device
        )
        inject = past == 0 and perceptual is not None
        if inject:
            perceptual = perceptual.to(hidden.dtype)  # type: ignore[union-attr]
        deep = prompt if past == 0 and prompt is not None and len(prompt) > 1 else None
        for block, (layer, token) in enumerate(zip(decoder.layers, self.plan, strict=True)):
            if inject and token is not None:
                hidden = torch.cat((perceptual[:, token : token + 1], hidden[:, 1:]), 1)  # type: ignore[index]
            if deep is not None and block:
                own = self._project_in(deep[block].to(hidden.dtype)).expand(len(hidden), -1, -1)
                hidden = torch.cat((hidden[:, :1], own, hidden[:, self.front :]), 1)
            seen = block >= self.injection.start and not self.injection.blind
            hidden = layer(
                hidden,
                attention_mask=with_front if seen else without_front,
                use_cache=bool(use_cache),
                **{_CACHE: cache},
            )
        if logits_to_keep:
            hidden = hidden[:, -logits_to_keep:]
        if decoder.final_layer_norm is not None:
            hidden = decoder.final_layer_norm(hidden)
        if decoder.project_out is not None:
            hidden = decoder.project_out(hidden)
        return CausalLMOutputWithPast(logits=self.lm_head(hidden), **{_CACHE: cache})

    def _embed(
        self, input_ids: torch.Tensor, real: torch.Tensor | None, prompt: Sequence[torch.Tensor] | None, past: int
    ) -> torch.Tensor:
        """Hidden states (B, positions, D) on entry to block 0; only text has positional embeddings."""
        decoder = self.model.decoder
        skipped = self.front if past == 0 else 0
        embedded = decoder.embed_tokens(input_ids[:, skipped:])  # (B, T, E)
        if skipped and self.prompt_length:
            if prompt is None:
                raise ValueError("this model has a soft prompt, and none was passed")
            embedded = torch.cat((prompt[0].to(embedded.dtype).expand(len(embedded), -1, -1), embedded), 1)
        embedded = self._project_in(embedded)
        first = past + skipped - self.front
        text = input_ids.shape[1] - skipped
        if real is None:
            positions = torch.arange(first, first + text, device=input_ids.device).unsqueeze(0)
        else:  # as in plain OPT: padding does not count, and takes the row before the first
            counted = real[:, self.front :].long()
            positions = (counted.cumsum(1) * counted - 1)[:, first:]
        placed = decoder.embed_positions(None, 0, position_ids=positions)  # (B or 1, T, D)
        if not skipped:
            later: torch.Tensor = embedded + placed
            return later
        parts = [embedded.new_zeros(len(input_ids), 1, embedded.shape[2])]
        if self.prompt_length:
            parts.append(embedded[:, : self.prompt_length])
        parts.append(embedded[:, self.prompt_length :] + placed)
        joined: torch.Tensor = torch.cat(parts, 1)
        return joined

    def _project_in(self, embedded: torch.Tensor) -> torch.Tensor:
        """(..., E) → (..., D): OPT-350M's words are narrower than its hidden states."""
        projection = self.model.decoder.project_in
        projected: torch.Tensor = embedded if projection is None else projection(embedded)
        return projected
