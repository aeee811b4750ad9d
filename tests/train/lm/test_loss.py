"""The loss in pieces: the numbers and gradients of the plain one, and memory that neither length nor words decide."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from epalm.train.lm import loss
from epalm.train.lm.loss import IGNORED, Head, Losses, label_positions, sample_losses

WIDTH, WORDS = 5, 7


def _labels(batch: int, length: int) -> torch.Tensor:
    labels = torch.randint(WORDS, (batch, length))
    labels[torch.rand(batch, length) < 0.4] = IGNORED
    return labels


def _losses(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, smoothing: float = 0.0) -> Losses:
    positions = label_positions(labels, width=hidden.shape[1])
    return sample_losses(hidden.flatten(0, 1)[positions.positions], Head(weight), positions, smoothing)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "MOST_LOGITS", 2 * WORDS)


@given(
    st.integers(1, 4), st.integers(2, 6), st.booleans(), st.booleans(), st.sampled_from((0.0, 0.1)), st.integers(0, 999)
)
def test_it_is_the_sum_over_each_samples_labelled_tokens(
    batch: int, length: int, whole: bool, trained: bool, smoothing: float, seed: int
) -> None:
    torch.manual_seed(seed)
    labels = _labels(batch, length)
    outer, factors = torch.randn(batch, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    weight = torch.randn(WORDS, WIDTH, dtype=torch.float64)
    hidden = torch.randn(batch, length if whole else length - 1, WIDTH, dtype=torch.float64)
    results: list[list[torch.Tensor]] = []
    for ours in (True, False):
        tensors = [tensor.clone().requires_grad_() for tensor in (hidden, weight)][: 2 if trained else 1]
        used = tensors[1] if trained else weight
        if ours:
            losses, exact = _losses(tensors[0], used, labels, smoothing)
        else:
            logits = tensors[0][:, : length - 1] @ used.T
            targets = labels[:, 1:]
            how: Any = {"ignore_index": IGNORED, "reduction": "none", "label_smoothing": smoothing}
            losses = functional.cross_entropy(logits.mT, targets, **how).sum(1)
            exact = ((logits.argmax(-1) == targets) | (targets == IGNORED)).all(1)
        if losses.requires_grad:
            (factors[0] * losses * outer).sum().backward()
        results.append([losses.detach(), exact, *(tensor.grad for tensor in tensors)])  # type: ignore[list-item]
    for mine, plain in zip(*results, strict=True):
        torch.testing.assert_close(mine, plain, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("trained", [False, True])
def test_its_gradients_are_those_of_finite_differences(trained: bool) -> None:
    torch.manual_seed(0)
    labels = _labels(3, 6)
    hidden = torch.randn(3, 6, WIDTH, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(WORDS, WIDTH, dtype=torch.float64, requires_grad=trained)
    for smoothing in (0.0, 0.3):
        loss = lambda *both, share=smoothing: _losses(both[0], both[1], labels, share).loss  # noqa: E731
        assert torch.autograd.gradcheck(loss, (hidden, weight))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    labels = torch.randint(WORDS, (4, 9))
    hidden, weight = torch.randn(4, 9, WIDTH).to(dtype), torch.randn(WORDS, WIDTH).to(dtype)
    results = []
    for chosen in (dtype, torch.float32):
        given = hidden.to(chosen, copy=True).requires_grad_()
        losses = _losses(given, weight.to(chosen), labels).loss
        assert losses.dtype == torch.float32
        (1e-3 * losses.sum()).backward()
        assert given.grad is not None and given.grad.dtype == chosen
        results.append((losses.detach(), given.grad.float()))
    torch.testing.assert_close(results[0], results[1], rtol=0.03, atol=3e-5)


class _Allocations(TorchDispatchMode):
    """The largest tensor that an operation gave, in values."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.largest = max(self.largest, *sizes, 0)
        return out


@pytest.mark.parametrize("trained", [False, True])
def test_no_tensor_has_positions_times_vocabulary(trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "MOST_LOGITS", 1 << 12)
    for length, words in ((10, 512), (80, 512), (10, 2048), (80, 2048)):
        torch.manual_seed(0)
        hidden = torch.randn(8, length, 2, requires_grad=True)
        weight = torch.randn(words, 2, requires_grad=trained)
        kept: list[int] = []

        def keep(tensor: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(tensor.numel())
            return tensor

        with _Allocations() as seen, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            _losses(hidden, weight, torch.randint(words, (8, length))).loss.sum().backward()
        bound = max(1 << 12, hidden.numel(), weight.numel())
        assert seen.largest <= bound < 8 * (length - 1) * words
        assert max(kept) <= bound
