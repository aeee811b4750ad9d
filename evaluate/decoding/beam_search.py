"""Beam search over a continuation; what it finds is what transformers' `generate` finds, with its defaults.

A tree of allowed texts may constrain it. A sample whose beams cannot get better any more leaves the batch. Knows no
model and no words.

Letters: S samples that go on, B beams, T new tokens so far, V vocabulary.
"""

from typing import Protocol

import torch

from epalm.evaluate.decoding.continuation import Continuation

_NONE = -1e9  # log-likelihood of a beam that is not there


class Tree(Protocol):
    """The texts that are allowed, as nodes (beginnings of texts, 0: the empty one) and tokens that follow them."""

    def allowed(self, nodes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens that may follow nodes (R,): of each the row in `nodes`, and the token."""
        ...

    def follow(self, nodes: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The nodes behind nodes and tokens of one shape; where a token is not allowed, any."""
        ...


class _Finished:
    """The best `beams` texts that ended, of each sample, with their scores."""

    def __init__(self, samples: int, beams: int, device: torch.device) -> None:
        self.scores = torch.full((samples, beams), _NONE, device=device)  # best first
        self.tokens = torch.empty((samples, beams, 0), dtype=torch.long, device=device)  # (S, B, T)

    def add(self, scores: torch.Tensor, tokens: torch.Tensor, pad: int) -> None:
        """Keep the best of those there and of these: scores (S, N), tokens (S, N, T), one more than before."""
        longer = torch.nn.functional.pad(self.tokens, (0, 1), value=pad)
        self.scores, places = torch.cat((self.scores, scores), 1).topk(self.scores.shape[1])
        self.tokens = _of_beams(torch.cat((longer, tokens), 1), places)

    def keep(self, samples: torch.Tensor) -> None:
        """Go on with these samples alone."""
        self.scores, self.tokens = self.scores[samples], self.tokens[samples]


def beam_search(rows: Continuation, *, beams: int, most: int, eos: int, tree: Tree | None = None) -> list[list[int]]:
    """The best new tokens of each row of `rows`, at most `most`; `eos` ends a text and is its last token.

    A text's score is its log-likelihood per token; with a `tree`, of whose texts one is chosen, its log-likelihood. The
    search for a sample ends when `beams` texts have ended and none that still runs scores higher than the worst.
    """
    device, samples = rows.logits.device, len(rows.logits)
    found: list[list[int]] = [[] for _ in range(samples)]
    who = torch.arange(samples, device=device)  # (S,) the number that a sample had at the beginning
    finished = _Finished(samples, beams, device)
    scores = torch.zeros(samples, 1, device=device)  # (S, B), all from one beam at first
    running = torch.empty((samples, 1, 0), dtype=torch.long, device=device)  # (S, B, T)
    nodes = who.new_zeros(samples, 1)  # (S, B) of the tree
    for length in range(1, most + 1):
        width = rows.logits.shape[1]
        likely = torch.log_softmax(rows.logits.float(), -1)
        if tree is not None:
            allowed = tree.allowed(nodes.flatten())
            likely = torch.full_like(likely, -torch.inf).index_put_(allowed, likely[allowed])
        likely = likely.view(len(who), -1, width) + scores[:, :, None]
        # Of twice as many as beams at most half can end here, so that enough are left to go on.
        top, places = likely.flatten(1).topk(2 * beams)
        origin, tokens = places // width, places % width
        texts = torch.cat((_of_beams(running, origin), tokens[:, :, None]), 2)
        ends = tokens == eos if length < most else torch.ones_like(tokens, dtype=torch.bool)
        counts = ends[:, :beams]  # what ends below the best is dropped
        per = 1 if tree is not None else length
        finished.add((top[:, :beams] / per).masked_fill(~counts, _NONE), texts[:, :beams], eos)
        scores, places = top.masked_fill(ends, _NONE).topk(beams)
        going = (scores[:, 0] / per > finished.scores[:, -1]) & (length < most)
        done = (~going).nonzero().flatten()
        for place, text in zip(who[done].tolist(), finished.tokens[done, 0].tolist(), strict=True):
            found[place] = _up_to(text, eos)
        if len(done) == len(who):
            break
        kept = going.nonzero().flatten()
        first = (kept * origin.new_tensor(running.shape[1])).unsqueeze(1)
        places, scores, who = places[kept], scores[kept], who[kept]
        rows.go_on((first + origin[kept].gather(1, places)).flatten(), tokens[kept].gather(1, places).flatten())
        if tree is not None:
            nodes = tree.follow(nodes[kept].gather(1, origin[kept]), tokens[kept]).gather(1, places)
        running = _of_beams(texts[kept], places)
        finished.keep(kept)
    return found


def _of_beams(texts: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Texts (S, N, T) at places (S, M) → (S, M, T)."""
    return texts.gather(1, places[:, :, None].expand(-1, -1, texts.shape[2]))


def _up_to(text: list[int], eos: int) -> list[int]:
    return text[: text.index(eos) + 1] if eos in text else text
