"""Questions answered from a list: a beam search that may produce these answers alone.

Knows the trained model and token ids; knows no samples. An answer is its token ids with `</s>` at the end, and its
likelihood that of all of them behind medium and question.

Letters: B samples, K perceptual tokens, D_enc encoder width, T tokens of the question, R beams, V vocabulary.
"""

from collections.abc import Sequence

import torch

from epalm.evaluate.decoding.beam_search import beam_search
from epalm.evaluate.decoding.continuation import Continuation
from epalm.train.bridge.model import EpalmModel

_ROWS = 512  # beams of all samples that are searched together


class AnswerTree:
    """The beginnings of all answers as a tree: which tokens may follow each. Node 0 is before every answer."""

    def __init__(self, answers: Sequence[Sequence[int]], vocabulary: int, device: torch.device) -> None:
        """No answer may be the beginning of another: each ends with `</s>`, and has it nowhere else."""
        self.places = {tuple(answer): place for place, answer in enumerate(answers)}
        self.longest, self._vocabulary = max(map(len, self.places)), vocabulary
        nodes: dict[tuple[int, ...], int] = {(): 0}
        for length in range(1, self.longest + 1):  # by length, so that an edge's number is that of the node it leads to
            for beginning in sorted({answer[:length] for answer in self.places if len(answer) >= length}):
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
    """The place of the answer chosen for each sample; `features` (B, K, D_enc), `input_ids` (B, T) of one length.

    It is the likeliest of all where there are as many beams as answers, else the likeliest that the search finds.
    Beams are at most half as many as tokens in the vocabulary.
    """
    beams = min(beams, int(model.lm.config.vocab_size) // 2)
    some = max(1, _ROWS // beams)
    found: list[list[int]] = []
    for values, ids in zip(features.split(some), input_ids.split(some), strict=True):
        rows = Continuation(model, values, ids)
        found += beam_search(rows, beams=beams, most=tree.longest, eos=model.lm.config.eos_token_id, tree=tree)
    return [tree.places[tuple(answer)] for answer in found]
