"""What has to hold of any language model with any bridge: exact caches, padding that does nothing, right gradients."""

from typing import Any

import pytest
import torch
from transformers import GenerationConfig
from transformers.cache_utils import DynamicCache

from epalm.train.bridge.model import EpalmModel
from tests.architectures import EOS

EXACT: Any = {"atol": 1e-9, "rtol": 1e-9}
FLOAT32: Any = {"atol": 1e-5, "rtol": 1e-5}  # some compute parts in float32 whatever the weights are


def check_cache_and_padding(model: EpalmModel, rows: torch.Tensor, ids: torch.Tensor, first: int, padding: int) -> None:
    """With `first` tokens given and then one at a time, and with so much padding on either side: the same logits."""
    logits, perceived, cache = model(rows, ids), model.perceive(rows), DynamicCache()
    cached = [model.next_logits(perceived, ids[:, :first], cache)]
    cached += [model.next_logits(perceived, ids[:, place : place + 1], cache) for place in range(first, ids.shape[1])]
    torch.testing.assert_close(torch.stack(cached, 1), logits[:, first - 1 :], **FLOAT32)
    fill, real = ids.new_ones(len(ids), padding), torch.ones_like(ids)
    for left in (True, False):
        padded, mask = (
            torch.cat((other, own) if left else (own, other), 1) for own, other in ((ids, fill), (real, 0 * fill))
        )
        ours = model(rows, padded, mask)
        torch.testing.assert_close(ours[:, padding:] if left else ours[:, :-padding], logits, **FLOAT32)


@torch.no_grad()
def generated(
    model: EpalmModel, rows: torch.Tensor, ids: torch.Tensor, beams: int, new: int, eos: int = EOS
) -> list[list[int]]:
    """The ids of at most `new` tokens that transformers' own `generate()` gives, up to the first EOS."""
    whole = torch.cat((ids.new_zeros(len(ids), model.lm.front), ids), 1)
    config = GenerationConfig(max_new_tokens=new, num_beams=beams, do_sample=False, eos_token_id=eos, pad_token_id=1)
    prompt = None if model.prompt is None else model.prompt()
    with model.lm.injecting(model.perceive(rows), prompt) as plain:
        ids_of_all = plain.generate(whole, generation_config=config, attention_mask=torch.ones_like(whole))
    produced = ids_of_all[:, whole.shape[1] :].tolist()
    return [row[: row.index(eos) + 1] if eos in row else row for row in produced]


def check_gradients(
    model: EpalmModel, rows: torch.Tensor, ids: torch.Tensor, labels: torch.Tensor, *, relative: float, absolute: float
) -> None:
    """Every trained tensor has a gradient of the summed loss, as large as finite differences along it say.

    Along the gradient itself: float32 parts inside the model leave little of a single number's difference.
    """

    def loss() -> torch.Tensor:
        return model.losses(rows, ids, None, labels).loss.sum()

    loss().backward()
    for name, tensor in model.trainable_tensors().items():
        assert tensor.grad is not None, name
        kept, direction, ends = tensor.data.clone(), tensor.grad / tensor.grad.norm().clamp(min=1e-12), []
        for step in (1e-4, -1e-4):
            tensor.data = kept + step * direction
            ends.append(float(loss().detach()))
        tensor.data = kept
        difference = (ends[0] - ends[1]) / 2e-4
        assert difference == pytest.approx(float(tensor.grad.norm()), rel=relative, abs=absolute), name
