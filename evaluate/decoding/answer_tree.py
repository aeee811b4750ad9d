"""Answers as a tree of their tokens: what begins alike is computed once. Knows no model.

A node is a beginning of an answer; an edge is a token that follows a node or, at first, the question. An answer is the
edges on its way, the last of them `</s>`.

Letters: A answers, N nodes of a piece, M edges.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_NODES = 128  # of a piece, computed together: each looks at all others, which is wasted on those that are no ancestors
_QUESTION = -1  # the node before every answer

Beginning = tuple[int, ...]


@dataclass(frozen=True)
class Edges:
    """Tokens that follow nodes, in the order of `nodes`."""

    numbers: torch.Tensor  # (M,) int64, of the tree's edges
    nodes: torch.Tensor  # (M,) int64, the place in the piece that each follows
    tokens: torch.Tensor  # (M,) int64


@dataclass(frozen=True)
class Piece:
    """Some nodes, with the nodes on the way to them; a text in which each token sees only its own beginning."""

    tokens: torch.Tensor  # (N,) int64
    depths: torch.Tensor  # (N,) int64; 0: the first token of an answer
    seen: torch.Tensor  # (N, N) bool: column is row, or on the way to it
    edges: Edges


class AnswerTree:
    """The tree of some answers; `edge_count` is how many edges it has."""

    def __init__(self, answers: Sequence[Sequence[int]], device: torch.device) -> None:
        """`answers` are token ids, each with its `</s>` at the end."""
        self.answers = [tuple(answer) for answer in answers]
        self.longest = max(map(len, self.answers))
        edges: dict[Beginning, int] = {}  # each ends with the edge's token
        for answer in sorted(self.answers):
            for length in range(1, len(answer) + 1):
                edges.setdefault(answer[:length], len(edges))
        self.edge_count = len(edges)
        following: dict[Beginning, list[Beginning]] = {}
        for edge in edges:
            following.setdefault(edge[:-1], []).append(edge)
        self.first = _edges(edges, following, {(): _QUESTION}, device)
        nodes = [node for node in sorted(following) if node]  # sorted: each behind those on the way to it
        self.pieces = [_piece(edges, following, own, device) for own in _cut(nodes)]
        unused = self.edge_count  # the edge of an answer that has ended
        self._ways = torch.full((len(self.answers), self.longest), unused, device=device)
        for row, answer in enumerate(self.answers):
            way = [edges[answer[: length + 1]] for length in range(len(answer))]
            self._ways[row, : len(way)] = torch.tensor(way, device=device)

    def totals(self, likely: torch.Tensor) -> torch.Tensor:
        """Log-likelihoods of edges (B, edges) → of answers (B, A)."""
        likely = torch.nn.functional.pad(likely, (0, 1))
        total = likely[:, self._ways[:, 0]]
        for step in range(1, self.longest):
            total += likely[:, self._ways[:, step]]
        return total


def _cut(nodes: Sequence[Beginning]) -> list[list[Beginning]]:
    """The nodes in pieces; those on the way to a piece's first node, which are in others, are counted."""
    pieces: list[list[Beginning]] = []
    room = 0
    for node in nodes:
        if room <= 0:
            pieces.append([])
            room = _NODES - (len(node) - 1)
        pieces[-1].append(node)
        room -= 1
    return pieces


def _piece(
    edges: dict[Beginning, int],
    following: dict[Beginning, list[Beginning]],
    own: Sequence[Beginning],
    device: torch.device,
) -> Piece:
    before = [own[0][:length] for length in range(1, len(own[0]))]
    nodes = [*before, *own]
    places = {node: place for place, node in enumerate(nodes)}
    seen = torch.zeros(len(nodes), len(nodes), dtype=torch.bool)
    for place, node in enumerate(nodes):
        seen[place, [places[node[:length]] for length in range(1, len(node) + 1)]] = True
    return Piece(
        torch.tensor([node[-1] for node in nodes], device=device),
        torch.tensor([len(node) - 1 for node in nodes], device=device),
        seen.to(device),
        _edges(edges, following, {node: places[node] for node in own}, device),
    )


def _edges(
    edges: dict[Beginning, int],
    following: dict[Beginning, list[Beginning]],
    places: dict[Beginning, int],
    device: torch.device,
) -> Edges:
    """The edges behind these nodes, which stand at these places."""
    found = [(edges[edge], place, edge[-1]) for node, place in places.items() for edge in following[node]]
    numbers, nodes, tokens = torch.tensor(found, device=device).T.contiguous()
    return Edges(numbers, nodes, tokens)
