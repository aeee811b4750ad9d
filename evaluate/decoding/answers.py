"""Questions answered from a list: up to 64 answers are scored whole, of more a beam search finds a likely one.

Knows the trained model and token ids; knows no samples. An answer is its token ids with `</s>` at the end, and its
likelihood that of all of them behind medium and question.

Letters: B samples, A answers, L tokens of the longest, T tokens of the question, R beams, V vocabulary.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from transformers.cache_utils import DynamicCache

from epalm.evaluate.decoding.beam_search import beam_search
from epalm.evaluate.decoding.continuation import Continuation
from epalm.train.bridge.model import EpalmModel
from epalm.train.lm.loss import IGNORED, MOST_LOGITS

MOST_WHOLE = 64  # answers of a list that are scored whole


class AnswerTree:
    """The beginnings of all answers as a tree: which tokens may follow each. Node 0 is before every answer."""

    def __init__(self, answers: Sequence[Sequence[int]], vocabulary: int, device: torch.device) -> None:
        """No answer may be the beginning of another: each ends with `</s>`, and has it nowhere else."""
        self.answers, self._vocabulary = [tuple(answer) for answer in answers], vocabulary
        self.longest = max(map(len, self.answers))
        nodes: dict[tuple[int, ...], int] = {(): 0}
        for length in range(1, self.longest + 1):  # by length, so that an edge's number is that of the node it leads to
            for beginning in sorted({answer[:length] for answer in self.answers if len(answer) >= length}):
                nodes[beginning] = len(nodes)
        edges = [nodes[way[:-1]] * vocabulary + way[-1] for way in nodes if way]  # node and token as one number, sorted
        self._edges = torch.tensor(edges, device=device)

    def allowed(self, nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens that may follow nodes (R,): of each the row in `nodes`, and the token."""
        first = torch.searchsorted(self._edges, nodes * self._vocabulary)
        counts = torch.searchsorted(self._edges, (nodes + 1) * self._vocabulary) - first
        rows = torch.repeat_interleave(torch.arange(len(nodes), device=nodes.device), counts)
        places = torch.arange(len(rows), device=nodes.device) - (counts.cumsum(0) - counts - first)[rows]
        return rows, self._edges[places] % self._vocabulary

    def follow(self, nodes: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The nodes behind nodes and tokens of one shape; where a token is not allowed, any."""
        return torch.searchsorted(self._edges, nodes * self._vocabulary + tokens) + 1


@torch.no_grad()
def choose_answers(
    model: EpalmModel, features: torch.Tensor, input_ids: torch.Tensor, tree: AnswerTree, *, beams: int
) -> list[int]:
    """The place of the answer that is chosen for each sample; `features` (B, K, D_enc), `input_ids` (B, T).

    Of up to 64 answers it is the likeliest. Of more it is the likeliest that a search with `beams` finds, which is
    exact where no more beginnings of one length are there than beams.
    """
    if len(tree.answers) <= MOST_WHOLE:
        return score_answers(model, features, input_ids, tree.answers).argmax(1).tolist()
    places = {answer: place for place, answer in enumerate(tree.answers)}
    rows = Continuation(model, features, input_ids)
    found = beam_search(rows, beams=beams, most=tree.longest, eos=model.lm.config.eos_token_id, tree=tree)
    return [places[tuple(answer)] for answer in found]


@torch.no_grad()
def score_answers(
    model: EpalmModel, features: torch.Tensor, input_ids: torch.Tensor, answers: Sequence[Sequence[int]]
) -> torch.Tensor:
    """The log-likelihood (B, A) of each answer, float32.

    In `causal` mode medium and question are computed once per sample; in `reference` mode they see the answer, so that
    every answer is computed with them.
    """
    score = _behind_prefix if model.lm.injection.attention == "causal" else _with_prefix
    largest = len(answers) * max(map(len, answers)) * int(model.lm.config.vocab_size)
    some = max(1, MOST_LOGITS // largest)  # samples whose logits are made at once
    parts = zip(features.split(some), input_ids.split(some), strict=True)
    return torch.cat([score(model, values, ids, answers) for values, ids in parts])


def _behind_prefix(
    model: EpalmModel, features: torch.Tensor, input_ids: torch.Tensor, answers: Sequence[Sequence[int]]
) -> torch.Tensor:
    samples, longest = len(input_ids), max(map(len, answers))
    padded = torch.tensor([[*answer, *[IGNORED] * (longest - len(answer))] for answer in answers])
    targets = padded.to(input_ids.device).repeat(samples, 1)  # (B · A, L), a sample's answers side by side
    cache = DynamicCache()
    first = model.next_logits(features, input_ids, cache)  # (B, V)
    cache.batch_repeat_interleave(len(answers))
    later = model.lm(targets[:, :-1].clamp(min=0), cache=cache, use_cache=True).logits  # (B · A, L - 1, V)
    logits = torch.cat((first.repeat_interleave(len(answers), 0).unsqueeze(1), later), 1).float()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    return -loss.view(samples, len(answers), longest).sum(2)


def _with_prefix(
    model: EpalmModel, features: torch.Tensor, input_ids: torch.Tensor, answers: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Answers of one length together: in `reference` mode padding would be seen."""
    samples, given = input_ids.shape
    likely = torch.empty(samples, len(answers), device=input_ids.device)
    by_length: dict[int, list[int]] = defaultdict(list)
    for place, answer in enumerate(answers):
        by_length[len(answer)].append(place)
    for places in by_length.values():
        ends = torch.tensor([answers[place] for place in places], device=input_ids.device)
        ids = torch.cat((input_ids.repeat_interleave(len(ends), 0), ends.repeat(samples, 1)), 1)
        labels = ids.clone()
        labels[:, :given] = IGNORED
        losses = model.losses(features.repeat_interleave(len(ends), 0), ids, None, labels).loss
        likely[:, places] = -losses.float().view(samples, len(ends))
    return likely
