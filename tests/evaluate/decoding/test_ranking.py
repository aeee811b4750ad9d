"""Ranking gives each answer the likelihood that the full model gives it alone; its files and options are checked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.errors import UsageError
from epalm.evaluate.decoding import answer_tree
from epalm.evaluate.decoding.answer_list import read_answers
from epalm.evaluate.decoding.answer_tree import AnswerTree
from epalm.evaluate.decoding.ranking import rank_answers
from epalm.train.bridge.model import EpalmModel
from epalm.train.lm.augmented_opt import AugmentedOPT
from epalm.train.lm.injection import Injection
from epalm.train.lm.loss import IGNORED
from tests.augmented_models import models, small_config, small_inputs, small_model

CPU = torch.device("cpu")
EOS = 2


def _alone(
    model: EpalmModel, features: torch.Tensor, ids: torch.Tensor, answers: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Each answer behind its question, one at a time, through the whole model: (B, A)."""
    rows = []
    for value, given_ids in zip(features, ids, strict=True):
        for answer in answers:
            text = torch.cat((given_ids, torch.tensor(answer))).unsqueeze(0)
            labels = text.clone()
            labels[:, : len(given_ids)] = IGNORED
            with torch.no_grad():
                rows.append(-model.losses(value.unsqueeze(0), text, None, labels).loss)
    return torch.cat(rows).view(len(ids), len(answers))


answer_lists = st.lists(
    st.lists(st.integers(3, 8), min_size=1, max_size=5).map(lambda ids: (*ids, EOS)), min_size=1, max_size=12
)


@given(
    st.one_of(models("causal"), models("reference")),
    st.integers(1, 3),
    st.integers(1, 4),
    answer_lists,
    st.integers(1, 6),
)
@settings(max_examples=20, deadline=None)
def test_each_answer_is_as_likely_as_alone(
    model: EpalmModel, batch: int, length: int, answers: list[tuple[int, ...]], nodes: int
) -> None:
    features, ids = small_inputs(model, batch, length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_tree, "_NODES", nodes)
        tree = AnswerTree(answers, CPU)
    ranked, alone = rank_answers(model, features, ids, tree), _alone(model, features, ids, answers)
    torch.testing.assert_close(ranked, alone, atol=1e-4, rtol=0)
    best, second = (alone.sort(1, descending=True).values[:, [0, min(1, len(answers) - 1)]]).T
    clear = best - second > 1e-3
    assert torch.equal(ranked.argmax(1)[clear], alone.argmax(1)[clear])


def test_what_answers_share_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(5, EOS), (5, 6, EOS), (5, 6, 7, EOS), (8, EOS), (8, 6, 7, EOS)]
    model = small_model(small_config(), Injection(2, 1, 3), length=2)
    features, ids = small_inputs(model, 2, 3)
    computed: list[int] = []
    branches, prefix = AugmentedOPT.branches, EpalmModel.next_logits

    def counted_branches(lm: AugmentedOPT, tokens: torch.Tensor, *words: Any) -> torch.Tensor:
        computed.append(len(tokens))
        return branches(lm, tokens, *words)

    def counted_prefix(*words: Any) -> torch.Tensor:
        computed.append(-1)
        return prefix(*words)

    monkeypatch.setattr(AugmentedOPT, "branches", counted_branches)
    monkeypatch.setattr(EpalmModel, "next_logits", counted_prefix)
    rank_answers(model, features, ids, AnswerTree(answers, CPU))
    assert computed == [-1, 6]  # the prefix once; 5, 5 6, 5 6 7, 8, 8 6, 8 6 7


def test_a_file_of_answers(tmp_path: Path) -> None:
    path = tmp_path / "answers.txt"
    path.write_bytes("\ufeffyes\r\n\n  no \nprès de l'eau\n".encode())
    assert read_answers(path) == ("yes", "no", "près de l'eau")
    path.write_bytes(b"a\x1fb\nc\x0cd\n")  # no line ends
    assert read_answers(path) == ("a\x1fb", "c\x0cd")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has no answers"),
        (b" \n\n", "has no answers"),
        (b"yes\nno\nyes \n", "line 3: 'yes' is there already, in line 1"),
        (b"x" * 201, "line 1: the answer has 201 characters"),
        (b"\xff\xfe", "is not UTF-8"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_answers(path)
