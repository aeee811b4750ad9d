"""Any decoder of transformers with F reserved positions in front, which carry perceptual tokens through its blocks.

Positions: F for the perceptual tokens, then P of the soft prompt, then the text. The plain model stays what it is: its
tensors keep their names, and hooks before its blocks do all, for calls within `injecting` alone, its `generate()`
among them. Below `start` and behind `exit` nobody sees the front positions: they enter and leave there, so that no
block works on them in vain. Only with a key/value cache they exist in *every* block, so that caches have one length.
Knows nothing about bridges, encoders or training. Method: eP-ALM (ICCV 2023), section 3.

Letters: B batch, G groups, F front positions, D hidden size, E word-embedding width, P prompt length, T text,
V vocabulary.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from epalm.errors import UsageError
from epalm.train.lm.adapters import Adapters
from epalm.train.lm.injection import Call, Injection, cut_mask, each_row, without_front
from epalm.train.lm.loss import Head, LabelPositions, Losses, sample_losses
from epalm.train.lm.profile import find_profile

_HOOKS = "injection_hooks"  # attribute of the plain model: the handles of what was put into it


Addition = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
_CALL: ContextVar[Call | None] = ContextVar("call", default=None)


class InjectedLM(nn.Module):
    """A plain model whose calls take perceptual tokens and a soft prompt.

    What was put into the model before is replaced.
    """

    def __init__(
        self,
        plain: PreTrainedModel,
        injection: Injection,
        prompt_length: int = 0,
        adapters: Adapters | None = None,
        addition: Addition | None = None,
    ) -> None:
        """`adapters` and `addition` belong to the caller. Raises UsageError: it cannot be done in this model.

        Of an injection without groups, `addition` says what is added to hidden states (B, Q, D) on entry to a block of
        the number from 0, of what is given as groups (B, ...).
        """
        super().__init__()
        self.profile = find_profile(plain)
        if self.profile.inputs_per_block and prompt_length:
            raise UsageError(
                f"the language model is of family {self.profile.family}, whose blocks read embeddings of their own: a "
                "soft prompt has none",
                hint="--set model.prompt=none",
            )
        for handle in vars(plain).pop(_HOOKS, ()):
            handle.remove()
        self.plain, self.injection, self.prompt_length, self._addition = plain, injection, prompt_length, addition
        plain.set_attn_implementation("eager" if self.profile.eager else "sdpa")
        # What is given by position goes by these names.
        self._of_decoder = list(inspect.signature(type(self.decoder).forward).parameters)[1:]
        self._of_block = list(inspect.signature(type(self.blocks[0]).forward).parameters)[2:]
        # transformers calls its key/value cache so from 5.24 on, and otherwise before.
        self._cache_name = "cache" if "cache" in self._of_decoder else "past_key_values"
        handles = [self.decoder.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for block, module in enumerate(self.blocks):
            handles.append(module.register_forward_pre_hook(partial(self._enter, block), with_kwargs=True))
        handles.append(self.blocks[-1].register_forward_hook(self._refill))
        if adapters is not None:
            handles += adapters.attach(self.blocks, self.profile)
        setattr(plain, _HOOKS, handles)

    @property
    def config(self) -> Any:
        """The plain model's configuration, of a multimodal one that of its text part."""
        return self.plain.config.get_text_config(decoder=True)

    @property
    def decoder(self) -> nn.Module:
        """The part that runs the blocks, from ids to the head's input."""
        decoder: nn.Module = self.plain.get_submodule(self.profile.decoder)
        return decoder

    @property
    def blocks(self) -> nn.ModuleList:
        """Its blocks."""
        blocks = self.plain.get_submodule(self.profile.blocks)
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    @property
    def front(self) -> int:
        """Most positions before the text: the perceptual ones and the prompt's."""
        return self.injection.front + self.prompt_length

    def front_of(self, groups: torch.Tensor | None) -> int:
        """F of given groups, which may be fewer than the most."""
        return self.injection.front if groups is None or not self.injection.groups else groups.shape[2]

    @property
    def text_positions(self) -> int:
        """How many tokens a text can have."""
        positions = int(self.config.max_position_embeddings)
        return positions if self.profile.learnt_positions else positions - self.front

    def require_sight(self, longest: int) -> None:
        """Raise UsageError where the end of a text of `longest` tokens sees no token in any block that gets one."""
        start, end, whole = self.injection.start, self.injection.end, self.front + longest
        windows = self.profile.windows[start:end] if self.injection.groups else ()
        if windows and all(window is not None and window < whole for window in windows):
            back = max(filter(None, self.profile.windows))
            seeing = [str(block) for block, window in enumerate(self.profile.windows) if (window or whole) >= whole]
            hint = f"--inject into one that sees all: {', '.join(seeing)}" if seeing else "shorten the texts"
            raise UsageError(
                f"blocks {start} to {end - 1} of the language model see at most {back} positions back, and what stands "
                f"in front and the longest text have {whole}",
                hint=hint,
            )

    def compile_blocks(self) -> None:
        """Have torch.compile make kernels for the blocks: minutes once, then faster; rounding may differ."""
        for block in self.blocks:
            # The forward alone: what wraps a call of the block stays outside. Kernels are for texts of any length.
            block.forward = torch.compile(block.forward, dynamic=True)

    def checkpoint_blocks(self) -> None:
        """Have blocks keep their input alone, and run again when the gradient reaches them."""
        for block in self.blocks:
            block.forward = partial(_checkpointed, block.forward)

    @contextmanager
    def injecting(
        self, groups: torch.Tensor | None = None, prompt: Sequence[torch.Tensor] | None = None
    ) -> Iterator[PreTrainedModel]:
        """The plain model, whose calls in this thread and context have F + P placeholder ids before the text's.

        In their place come `groups` (B, G, F, D), and `prompt`, (P, E) for the first block or for each; calls with a
        filled cache need neither, where nothing is added. With beams, the rows of one sample stand together. Sliding
        windows count positions: padding between front and text leaves less of them.
        """
        token = _CALL.set(Call(groups, prompt, self.front_of(groups)))
        try:
            yield self.plain
        finally:
            _CALL.reset(token)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        groups: torch.Tensor | None = None,
        prompt: Sequence[torch.Tensor] | None = None,
        cache: Cache | None = None,
        logits_to_keep: int = 0,
    ) -> torch.Tensor:
        """Logits (B, positions, V) for `input_ids` (B, F + P + T), whose first F + P ids are placeholders.

        A front that left has none where there is no cache. `groups` and `prompt` as in `injecting`. A `cache` is
        filled. `attention_mask` (B, past + positions) is 1 for all but padding; None means no padding. `logits_to_keep`
        > 0: only the last so many positions' logits.
        """
        with self.injecting(groups, prompt) as plain:
            logits: torch.Tensor = plain(
                input_ids=input_ids,
                attention_mask=attention_mask,
                use_cache=cache is not None,
                logits_to_keep=logits_to_keep,
                **{self._cache_name: cache},
            ).logits
        return logits

    def losses(
        self,
        labels: LabelPositions,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        groups: torch.Tensor | None = None,
        prompt: Sequence[torch.Tensor] | None = None,
        smoothing: float = 0.0,
    ) -> Losses:
        """The losses where there are labels, whose positions count the text alone; the rest as in `forward`."""
        with self.injecting(groups, prompt):
            hidden = self.decoder(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)[0]
        before = self.front_of(groups) + self.prompt_length
        hidden = hidden[:, before:].flatten(0, 1).index_select(0, labels.positions)
        linear = self.plain.get_output_embeddings()
        head = Head(linear.weight, linear.bias, self.profile.scale, self.profile.cap)
        return sample_losses(hidden, head, labels, smoothing)

    def _begin(self, _decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before the decoder: what is past, and every position's number."""
        call = _CALL.get()
        if call is None:
            return None
        kwargs.update(zip(self._of_decoder, args, strict=False))
        ids, cache, mask = kwargs["input_ids"], kwargs.get(self._cache_name), kwargs.get("attention_mask")
        use_cache = kwargs.get("use_cache")
        cached = cache is not None or (self.config.use_cache if use_cache is None else use_cache)
        call.begin(cache, ids.shape[1], apart=not cached)
        if mask is None and self.profile.learnt_positions:
            # With a mask, positions that do not rise one by one are not taken for several texts in one row.
            kwargs["attention_mask"] = mask = ids.new_ones(len(ids), call.past + call.queries)
        if mask is not None:
            skipped = call.front + self.prompt_length if self.profile.learnt_positions else 0
            lowest = self.profile.lowest_position
            positions = (mask.long().cumsum(1) - 1 - skipped).masked_fill(mask == 0, lowest).clamp(min=lowest)
            kwargs["position_ids"] = positions[:, call.past :]
        return (), kwargs

    def _enter(self, block: int, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before a block: what enters there, and who sees it."""
        call = _CALL.get()
        if call is None:
            return None
        hidden, *others = args
        kwargs.update(zip(self._of_block, others, strict=False))
        front, injection, mask = call.front, self.injection, kwargs["attention_mask"]
        if not call.past:
            hidden = self._put_in(call, block, hidden)
        if self._addition is not None and call.groups is not None and injection.start <= block < injection.end:
            added = self._addition(hidden, each_row(call.groups, hidden), block - injection.start)
            hidden = hidden + (added * 0 if injection.blind else added)  # its tensors have gradients all the same
        seen, hide = injection.seen_by_front(call.past + call.queries, front), injection.hides(block)
        if not call.past and call.present < front:
            cut = partial(without_front, front=front, length=call.queries)
            kwargs = {name: call.once(value, "cut", cut) for name, value in kwargs.items()}
            kwargs["attention_mask"] = call.once(mask, "cut mask", partial(cut_mask, front=front))
        elif front and (hide or (seen and not call.past)):
            kwargs["attention_mask"] = call.edited(mask, block, hidden.device, hide=hide, seen=seen)
        return (hidden,), kwargs

    def _put_in(self, call: Call, block: int, hidden: torch.Tensor) -> torch.Tensor:
        """The hidden states on entry to a block with its group, and its prompt, in their places."""
        injection, prompt, length, present = self.injection, call.prompt, self.prompt_length, call.present
        group, groups = injection.group_of(block), call.groups
        front = hidden[:, :present] if block else torch.zeros_like(hidden[:, :present])
        if group is not None and groups is not None:
            front = each_row(groups[:, group], hidden)
        if call.apart and not injection.has_front(block):
            front = front[:, :0]
        call.present = front.shape[1]
        middle = hidden[:, present : present + length]
        if prompt is not None and block < len(prompt):
            middle = self._project(prompt[block].to(hidden.dtype)).expand(len(hidden), -1, -1)
        elif block and group is None and call.present == present:
            return hidden
        return torch.cat((front, middle, hidden[:, present + length :]), 1)

    def _refill(self, _block: nn.Module, _args: Any, output: Any) -> Any:
        """Behind the last block: zeros where the front stood, if it left; some decoders count positions in the end."""
        call = _CALL.get()
        if call is None or call.past or call.present == call.front:
            return None
        hidden, *others = output if isinstance(output, tuple) else (output,)
        hidden = nn.functional.pad(hidden, (0, 0, call.front - call.present, 0))
        return (hidden, *others) if isinstance(output, tuple) else hidden

    def _project(self, words: torch.Tensor) -> torch.Tensor:
        """(..., E) → (..., D): OPT-350M's words are narrower than its hidden states."""
        projection = getattr(self.decoder, "project_in", None)
        projected: torch.Tensor = words if projection is None else projection(words)
        return projected


def _checkpointed(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled() or kwargs.get("use_cache"):
        return forward(*args, **kwargs)
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
