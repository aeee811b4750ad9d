"""What the loss does not need is not computed, and leaving it out changes no loss and no gradient."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import OPTConfig, OPTForCausalLM
from transformers.cache_utils import DynamicCache

from epalm.datasets import load_dataset
from epalm.recipes.config import load_config
from epalm.samples import Modality, Sample
from epalm.train.bridge.build import ONE_TOKEN, build_model
from epalm.train.bridge.model import EpalmModel
from epalm.train.data.batches import Batch
from epalm.train.lm.injected_lm import InjectedLM
from epalm.train.lm.loss import IGNORED
from epalm.train.loop import losses_of
from epalm.train.material import Material
from epalm.train.request import TrainRequest
from epalm.train.setup import set_up

WIDTH, WORDS, TOKENS = 5, 23, 2
FORMS = {
    "epalm-lin": ["model.variant=epalm-lin"],
    "epalm-pt": ["model.variant=epalm-pt"],
    "epalm": [],
    "epalm-ada": ["model.variant=epalm-ada"],
    "deep prompt": ["model.deep_prompt=true"],
    "lm trained": ["model.variant=epalm-lin", "lm.train=true"],
}


def _model(form: str, blocks: int = 4, start: int = 2, end: int = 3, *overrides: str, wide: bool = True) -> EpalmModel:
    """In float64, with weights large enough that a wrong gradient is seen."""
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=WORDS,
        hidden_size=8,
        word_embed_proj_dim=8 if wide else 4,
        num_hidden_layers=blocks,
        num_attention_heads=2,
        ffn_dim=12,
        max_position_embeddings=32,
        do_layer_norm_before=wide,
    )
    places = [f"model.tokens={TOKENS}", f"model.start={start}", f"model.end={end}", "model.prompt_length=2"]
    chosen = load_config("playground", [*places, "model.adapter_factor=4", *FORMS[form], *overrides])
    model = build_model(chosen.resolved(blocks), OPTForCausalLM(config).eval(), WIDTH).double()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.mul_(200 if "adapters" in name else 5 if name.startswith("lm.") else 1)
    return model


def _batch(lengths: list[int], seed: int = 0) -> Batch:
    torch.manual_seed(seed)
    ids = torch.randint(3, WORDS, (len(lengths), max(lengths)))
    mask = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
    labels = ids.masked_fill(~mask, IGNORED)
    labels[:, 0] = IGNORED
    rows, count = torch.randn(len(ids), TOKENS, 1, WIDTH).double(), len(ids)
    return Batch(rows, ids, None if mask.all() else mask.long(), labels, count, count)


def _gradients(model: EpalmModel, losses: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    (0.1 * losses.mean()).backward()
    return {
        name: torch.zeros_like(tensor) if tensor.grad is None else tensor.grad.clone()
        for name, tensor in model.trainable_tensors().items()
    }


def _all_of_it(model: EpalmModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and exactness from every position's logits, the front position in every block: as decoding computes."""
    inputs = model._with_front(model.perceive(batch.features), batch.input_ids, batch.attention_mask)
    logits = model.lm(**inputs, cache=DynamicCache())
    logits, targets = logits[:, model.lm.front : -1], batch.labels[:, 1:]
    losses = functional.cross_entropy(logits.mT, targets, ignore_index=IGNORED, reduction="none").sum(1)
    return losses, ((logits.argmax(-1) == targets) | (targets == IGNORED)).all(1)


@given(
    st.sampled_from(sorted(FORMS)),
    st.integers(1, 5).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))),
    st.integers(1, 5),
    st.lists(st.integers(2, 7), min_size=1, max_size=3),
    st.sampled_from(("causal", "reference")),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=60)
def test_losses_and_gradients_are_those_of_computing_everything(
    form: str,
    place: tuple[int, int],
    span: int,
    lengths: list[int],
    attention: str,
    blind: bool,
    wide: bool,
    checkpointing: bool,
) -> None:
    blocks, start = place
    words = [f"model.attention={attention}", f"model.blind={str(blind).lower()}"]
    model = _model(form, blocks, start, min(start + span, blocks), *words, wide=wide)
    if checkpointing:
        model.lm.checkpoint_blocks()
    batch = _batch(lengths)
    losses, exact = losses_of(model, batch)
    plain, plain_exact = _all_of_it(model, batch)
    torch.testing.assert_close(losses, plain, atol=1e-10, rtol=1e-10)
    assert torch.equal(exact, plain_exact)
    torch.testing.assert_close(_gradients(model, losses), _gradients(model, plain), atol=1e-10, rtol=1e-10)


@contextmanager
def _watched(model: EpalmModel) -> Iterator[list[tuple[int, bool, int]]]:
    """(block, whether it ran with autograd, positions) of every run of a block, seen at its attention."""
    seen: list[tuple[int, bool, int]] = []
    handles = []
    for block, layer in enumerate(model.lm.blocks):
        parts = [layer] if model.adapters is None else [layer, model.adapters[block]]
        trained = any(one.requires_grad for part in parts for one in part.parameters())

        def note(_module: Any, _args: Any, kwargs: Any, block: int = block, trained: bool = trained) -> None:
            hidden = kwargs["hidden_states"]
            learns = torch.is_grad_enabled() and (hidden.requires_grad or trained)
            seen.append((block, learns, hidden.shape[1]))

        attention = layer.get_submodule(model.lm.profile.attention)
        handles.append(attention.register_forward_pre_hook(note, with_kwargs=True))
    yield seen
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(("form", "first"), [("epalm-lin", 2), *((name, 0) for name in FORMS if name != "epalm-lin")])
def test_blocks_below_the_first_trained_influence_run_without_autograd(form: str, first: int) -> None:
    model = _model(form)
    front = model.lm.front
    with _watched(model) as seen:
        losses = losses_of(model, _batch([6, 4])).loss
    assert [learns for _, learns, _ in seen] == [block >= first for block in range(4)]
    # Five of six tokens predict one; the front position comes in where it is first seen.
    assert [positions for *_, positions in seen] == [5 + front - (block < 2) for block in range(4)]
    with _watched(model) as seen:
        losses.sum().backward()
    assert not seen
    with _watched(model) as seen, torch.no_grad():
        losses_of(model, _batch([6, 4]))
    assert not any(learns for _, learns, _ in seen)


@pytest.mark.parametrize(("form", "again"), [("epalm-lin", [3, 2]), ("epalm", [3, 2, 1, 0])])
def test_checkpointing_computes_the_blocks_with_autograd_again_and_keeps_less(form: str, again: list[int]) -> None:
    kept = []
    for checkpointing in (False, True):
        model = _model(form)
        if checkpointing:
            model.lm.checkpoint_blocks()
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            losses = losses_of(model, _batch([7, 7])).loss
        kept.append(sum(sizes))
        with _watched(model) as seen:
            losses.sum().backward()
        assert [block for block, *_ in seen] == (again if checkpointing else [])
    assert kept[1] < 0.6 * kept[0]


def test_attention_is_the_one_that_needs_no_mask_for_the_order_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model("epalm-lin")
    assert model.lm.config._attn_implementation == "sdpa"
    masks: list[tuple[bool, bool]] = []
    plain = functional.scaled_dot_product_attention

    def watched(*args: Any, **options: Any) -> Any:
        masks.append((options["attn_mask"] is None, options["is_causal"]))
        return plain(*args, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", watched)
    losses_of(model, _batch([6, 4]))
    assert masks == [(True, True)] * 4


_LENGTHS = ([8, 8], [15, 12], [8, 5, 3], [9, 9])


def _same_when_compiled(form: str, counted: Callable[[], int], batches: Sequence[list[int]] = _LENGTHS) -> list[int]:
    """What was counted after each batch."""
    compiled, plain = _model(form), _model(form)
    counts = []
    compiled.lm.compile_blocks()
    for lengths in batches:
        batch = _batch(lengths)
        losses, wanted = losses_of(compiled, batch).loss, losses_of(plain, batch).loss
        torch.testing.assert_close(losses, wanted, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(_gradients(compiled, losses), _gradients(plain, wanted), atol=1e-10, rtol=1e-10)
        counts.append(counted())
    return counts


def test_blocks_are_compiled_once_whatever_the_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.testing import CompileCounter

    counter, real = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **options: real(call, backend=counter, **options))
    torch.compiler.reset()
    counts = _same_when_compiled("epalm-lin", lambda: counter.frame_count)
    # Without autograd, where it begins, and behind: not for each block, and not for each length.
    assert counts[0] == counts[-1] <= 3, counts


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler here")
def test_compiled_blocks_give_the_same_losses_and_gradients() -> None:
    torch.compiler.reset()
    _same_when_compiled("epalm-ada", lambda: 0, _LENGTHS[1:3])


class Zeros:
    layers, width, layout = TOKENS, 96, ONE_TOKEN

    def gather(self, samples: Sequence[Sample], *, epoch: int | None = None) -> np.ndarray:
        return np.zeros((len(samples), TOKENS, 1, 96), np.float32)

    def digests(self, samples: Sequence[Sample]) -> list[str]:
        return [""] * len(samples)

    def describe(self) -> dict[str, Any]:
        return {"source": "test"}


def test_the_settings_reach_the_blocks(monkeypatch: pytest.MonkeyPatch, worlds: dict[Modality, Path]) -> None:
    compiled: list[bool] = []
    checkpointed: list[bool] = []
    for name, calls in (("compile_blocks", compiled), ("checkpoint_blocks", checkpointed)):
        monkeypatch.setattr(InjectedLM, name, lambda _self, calls=calls: calls.append(True))
    dataset = load_dataset(str(worlds[Modality.IMAGE]), Modality.IMAGE)
    request, samples = TrainRequest(device="cpu"), dataset.split("train")[:4]
    for chosen in (True, False):
        words = [f"optim.{key}={str(chosen).lower()}" for key in ("gradient_checkpointing", "compiled")]
        config = load_config("playground", words)
        set_up(Material(request, config, dataset, Modality.IMAGE, Zeros(), samples))
        assert bool(compiled) is bool(checkpointed) is chosen
        compiled.clear()
        checkpointed.clear()
