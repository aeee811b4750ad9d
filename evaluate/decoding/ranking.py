"""How likely each of some answers is, given media and question: the prefix is computed once, and what answers share.

Knows the trained model and token ids; knows no samples.

Letters: B samples, A answers, T tokens of the question, N nodes, E width of the head's input, V vocabulary.
"""

from collections import defaultdict

import torch
from transformers.cache_utils import DynamicCache

from epalm.evaluate.decoding.answer_tree import AnswerTree, Edges
from epalm.train.bridge.model import EpalmModel
from epalm.train.lm.loss import IGNORED, MOST_LOGITS

_TOKENS = 8192  # of a batch, where answers are computed whole


@torch.no_grad()
def rank_answers(model: EpalmModel, features: torch.Tensor, input_ids: torch.Tensor, tree: AnswerTree) -> torch.Tensor:
    """The log-likelihood (B, A) of each answer with its `</s>`, float32.

    `features` (B, K, D_enc); `input_ids` (B, T), all of one length. In `causal` mode the prefix is computed once per
    sample; in `reference` mode it sees the answer, so that every answer is computed whole.
    """
    if model.lm.injection.attention != "causal":
        return _whole(model, features, input_ids, tree)
    cache = DynamicCache()
    logits = model.next_logits(features, input_ids, cache)
    likely = logits.new_zeros(len(logits), tree.edge_count, dtype=torch.float32)
    _take(likely, tree.first, logits.unsqueeze(1), -1)
    for piece in tree.pieces:
        hidden = model.lm.branches(piece.tokens, piece.depths, piece.seen, cache)  # (B, N, E)
        some = max(1, MOST_LOGITS // (len(hidden) * model.lm.config.vocab_size))  # nodes whose logits are made at once
        for start in range(0, hidden.shape[1], some):
            _take(likely, piece.edges, model.lm.lm_head(hidden[:, start : start + some]), start)
    return tree.totals(likely)


def _take(likely: torch.Tensor, edges: Edges, logits: torch.Tensor, start: int) -> None:
    """Put the log-likelihoods of the edges behind the nodes from `start` on, whose logits (B, n, V) these are."""
    limits = torch.tensor([start, start + logits.shape[1]], device=edges.nodes.device)
    low, high = torch.searchsorted(edges.nodes, limits).tolist()
    if low == high:  # nodes that are here for those behind them alone
        return
    logits = logits.float()
    nodes = edges.nodes[low:high] - start
    all_of_node = logits.logsumexp(-1)[:, nodes]
    likely[:, edges.numbers[low:high]] = logits[:, nodes, edges.tokens[low:high]] - all_of_node


def _whole(model: EpalmModel, features: torch.Tensor, input_ids: torch.Tensor, tree: AnswerTree) -> torch.Tensor:
    """As `rank_answers`, each answer behind its question; answers of one length together, so nothing is padded."""
    samples, given = input_ids.shape
    likely = torch.empty(samples, len(tree.answers), device=input_ids.device)
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, answer in enumerate(tree.answers):
        by_length[len(answer)].append(number)
    for length, numbers in by_length.items():
        some = max(1, _TOKENS // (samples * (given + length)))
        for start in range(0, len(numbers), some):
            part = numbers[start : start + some]
            answers = torch.tensor([tree.answers[number] for number in part], device=input_ids.device)
            ids = torch.cat(
                (input_ids.repeat_interleave(len(part), 0), answers.repeat(samples, 1)), 1
            )  # (B · answers, T + length), a sample's answers side by side
            labels = ids.clone()
            labels[:, :given] = IGNORED
            losses = model.losses(features.repeat_interleave(len(part), 0), ids, None, labels).loss
            likely[:, part] = -losses.float().view(samples, len(part))
    return likely
