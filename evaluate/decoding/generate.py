"""Token ids that go on from given ones: beams, greedy, drawn, or one of a list of answers.

Rows of text grow token by token; what is finished leaves the batch, so that it costs nothing. Knows the trained model,
no samples and no words. Beam search finds what transformers' `generate` finds, with its defaults.

Letters: B samples, L layers and T tokens of features of width D_enc, R rows, S samples that go on, N beams,
candidates or text tokens, V vocabulary.
"""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from epalm.evaluate.decoding.options import Sampling
from epalm.train.bridge.model import EpalmModel

_NONE = -1e9  # log-likelihood of a beam that is not there
_ROWS = 512  # beams of all samples that are searched together for answers


@torch.no_grad()
def generate(
    model: EpalmModel,
    features: torch.Tensor,
    input_ids: torch.Tensor,
    *,
    eos: int | None = None,
    num_beams: int = 3,
    max_length: int = 30,
    sampling: Sampling | None = None,
    names: Sequence[str] = (),
    use_cache: bool = True,
) -> list[list[int]]:
    """The new token ids of each row, `eos` [the LM's] last where it ended: at most `max_length` with the given ones.

    `features` (B, K, D_enc); `input_ids` (B, T), all of one length. With `sampling`, what is drawn for a row is decided
    by its name. `reference` attention recomputes all at every step, whatever `use_cache` says.
    """
    rows = Continuation(model, features, input_ids, use_cache=use_cache)
    most, eos = max_length - input_ids.shape[1], model.lm.config.eos_token_id if eos is None else eos
    if sampling is None and num_beams > 1:
        return beam_search(rows, beams=num_beams, most=most, eos=eos)
    texts: list[list[int]] = [[] for _ in input_ids]
    who = torch.arange(len(texts), device=input_ids.device)  # the number that a row had at the beginning
    streams = []  # of numbers, of each name its own, whatever others are drawn beside it
    if sampling is not None:
        for name in names:
            digest = sha256(f"{sampling.seed}/{name}".encode(errors="surrogatepass")).digest()
            streams.append(np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16]))).random(most))
    numbers = torch.from_numpy(np.array(streams)).to(input_ids.device)
    for step in range(most):
        if sampling is None:
            tokens = rows.logits.float().argmax(-1)
        else:
            tokens = draw(rows.logits, numbers[who, step], temperature=sampling.temperature, top_p=sampling.top_p)
        for place, token in zip(who.tolist(), tokens.tolist(), strict=True):
            texts[place].append(token)
        kept = (tokens != eos).nonzero().flatten()
        if step == most - 1 or not len(kept):
            break
        who = who[kept]
        rows.go_on(kept, tokens[kept])
    return texts


def draw(logits: torch.Tensor, numbers: torch.Tensor, *, temperature: float, top_p: float) -> torch.Tensor:
    """Tokens (R,) drawn by numbers (R,) in [0, 1): from the likeliest that have `top_p` of the probability together."""
    ordered, tokens = (logits.double() / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    below = ordered.cumsum(-1)
    # The likeliest is always there; of the others those before which less than `top_p` is.
    below = below.masked_fill(below - ordered >= top_p, 0).cummax(-1).values
    return tokens.gather(1, torch.searchsorted(below, numbers.unsqueeze(1) * below[:, -1:])).squeeze(1)


class AnswerTree:
    """A list of answers as a tree of their tokens: which may follow each beginning. Node 0 is before every answer."""

    def __init__(self, answers: Sequence[Sequence[int]], vocabulary: int, device: torch.device) -> None:
        """No answer may be the beginning of another: each ends with EOS, and has it nowhere else."""
        self.eos = answers[0][-1]
        self.places = {tuple(answer): place for place, answer in enumerate(answers)}
        self.longest, self._vocabulary = max(map(len, self.places)), vocabulary
        beginnings = {answer[:length] for answer in self.places for length in range(len(answer) + 1)}
        # By length, so that an edge's number is that of the node it leads to.
        nodes = {way: node for node, way in enumerate(sorted(beginnings, key=lambda way: (len(way), way)))}
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
    config = model.lm.config
    beams = min(beams, int(config.vocab_size) // 2)
    some = max(1, _ROWS // beams)
    chosen: list[list[int]] = []
    for values, ids in zip(features.split(some), input_ids.split(some), strict=True):
        rows = Continuation(model, values, ids)
        chosen += beam_search(rows, beams=beams, most=tree.longest, eos=tree.eos, tree=tree)
    return [tree.places[tuple(answer)] for answer in chosen]


class Continuation:
    """Texts (rows) and what the model expects to come next: `logits` (R, V) of the token behind each row.

    With the key/value cache a step computes one position of each row; without, as `reference` attention needs it, all.
    """

    def __init__(
        self, model: EpalmModel, features: torch.Tensor, input_ids: torch.Tensor, *, use_cache: bool = True
    ) -> None:
        """`features` (R, L, T, D_enc) and `input_ids` (R, N), without padding."""
        self._model, self._perceived, self._ids = model, model.perceive(features), input_ids
        self._cache = DynamicCache() if use_cache and model.lm.injection.attention == "causal" else None
        self.logits = model.next_logits(self._perceived, input_ids, self._cache)

    def go_on(self, rows: torch.Tensor, tokens: torch.Tensor) -> None:
        """From now on the rows are these of the former ones (R,), in this order, each with its token (R,) behind it.

        A row may be named several times, or not at all: it is let go then.
        """
        moved = not torch.equal(rows, torch.arange(len(self.logits), device=rows.device))
        if moved and (self._cache is None or not self._model.lm.injection.groups):  # else the cache holds it
            self._perceived = self._perceived[rows]
        if self._cache is None:
            self._ids = torch.cat((self._ids[rows], tokens.unsqueeze(1)), 1)
            self.logits = self._model.next_logits(self._perceived, self._ids)
            return
        if moved:
            self._cache.reorder_cache(rows)
        self.logits = self._model.next_logits(self._perceived, tokens.unsqueeze(1), self._cache)


def beam_search(
    rows: Continuation, *, beams: int, most: int, eos: int, tree: AnswerTree | None = None
) -> list[list[int]]:
    """The best new tokens of each row of `rows`, at most `most`; `eos` ends a text and is its last token.

    A text's score is its log-likelihood per token; with a `tree`, of whose texts one is chosen, its log-likelihood. The
    search for a sample ends when `beams` texts have ended and none that still runs scores higher than the worst.
    """
    device, samples = rows.logits.device, len(rows.logits)
    found: list[list[int]] = [[] for _ in range(samples)]
    who = torch.arange(samples, device=device)  # (S,) the number that a sample had at the beginning
    best = torch.full((samples, beams), _NONE, device=device)  # (S, B) scores of the best texts that ended, best first
    best_texts = torch.empty((samples, beams, 0), dtype=torch.long, device=device)  # (S, B, T)
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
        per = 1 if tree is not None else length
        ended = (top / per).masked_fill(~ends, _NONE)[:, :beams]  # what ends below the best is dropped
        best, places = torch.cat((best, ended), 1).topk(beams)
        longer = torch.nn.functional.pad(best_texts, (0, 1), value=eos)
        best_texts = _of_beams(torch.cat((longer, texts[:, :beams]), 1), places)
        scores, places = top.masked_fill(ends, _NONE).topk(beams)
        going = (scores[:, 0] / per > best[:, -1]) & (length < most)
        done = (~going).nonzero().flatten()
        for place, text in zip(who[done].tolist(), best_texts[done, 0].tolist(), strict=True):
            found[place] = text[: text.index(eos) + 1] if eos in text else text
        if len(done) == len(who):
            break
        kept = going.nonzero().flatten()
        first = (kept * origin.new_tensor(running.shape[1])).unsqueeze(1)
        places, scores, who, best, best_texts = (one[kept] for one in (places, scores, who, best, best_texts))
        rows.go_on((first + origin[kept].gather(1, places)).flatten(), tokens[kept].gather(1, places).flatten())
        if tree is not None:
            nodes = tree.follow(nodes[kept].gather(1, origin[kept]), tokens[kept]).gather(1, places)
        running = _of_beams(texts[kept], places)
    return found


def _of_beams(texts: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Texts (S, N, T) at places (S, M) → (S, M, T)."""
    return texts.gather(1, places[:, :, None].expand(-1, -1, texts.shape[2]))
