"""A list of answers as a tree of their tokens, which keeps a beam search to this list. Knows token ids alone.

Letters: R rows, each at a node of the tree.
"""

from collections.abc import Sequence

import torch


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
