"""Answers of a list are as likely as the full model says of each alone; a search finds one of them, and it alone."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.errors import UsageError
from epalm.evaluate.decoding import answers as module
from epalm.evaluate.decoding.answers import AnswerTree, choose_answers, score_answers
from epalm.evaluate.decoding.options import read_answers
from epalm.train.bridge.model import EpalmModel
from epalm.train.lm.augmented_opt import AugmentedOPT
from epalm.train.lm.injection import Injection
from epalm.train.lm.loss import IGNORED
from tests.augmented_models import VOCABULARY, models, small_config, small_inputs, small_model

CPU = torch.device("cpu")
EOS = 2


def _alone(
    model: EpalmModel, features: torch.Tensor, ids: torch.Tensor, answers: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Each answer behind its question, alone, through the whole model: (B, A)."""
    columns = []
    for answer in answers:
        texts = torch.cat((ids, torch.tensor(answer).expand(len(ids), -1)), 1)
        labels = texts.clone()
        labels[:, : ids.shape[1]] = IGNORED
        with torch.no_grad():
            columns.append(-model.losses(features, texts, None, labels).loss)
    return torch.stack(columns, 1)


answer_lists = st.lists(
    st.lists(st.integers(3, 8), min_size=1, max_size=5).map(lambda ids: (*ids, EOS)),
    min_size=1,
    max_size=9,
    unique=True,
)


@given(
    st.one_of(models("causal"), models("reference")), st.integers(1, 3), st.integers(1, 4), answer_lists, st.booleans()
)
@settings(max_examples=10, deadline=None)
def test_each_answer_is_as_likely_as_alone(
    model: EpalmModel, batch: int, length: int, answers: list[tuple[int, ...]], one_by_one: bool
) -> None:
    features, ids = small_inputs(model, batch, length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_LOGITS", 1 if one_by_one else 1 << 22)
        scored = score_answers(model, features, ids, answers)
    alone = _alone(model, features, ids, answers)
    torch.testing.assert_close(scored, alone, atol=1e-4, rtol=0)
    chosen = torch.tensor(choose_answers(model, features, ids, AnswerTree(answers, VOCABULARY, CPU), beams=1))
    assert _best(alone, chosen)


def _best(alone: torch.Tensor, chosen: torch.Tensor) -> bool:
    """Whether the chosen answers are the likeliest; those as likely but for rounding are, too."""
    return bool((alone.max(1).values - alone.gather(1, chosen[:, None])[:, 0] < 1e-3).all())


@given(st.one_of(models("causal"), models("reference")), st.integers(1, 3), st.integers(1, 4), answer_lists.map(set))
@settings(max_examples=10, deadline=None)
def test_as_many_beams_as_answers_find_the_likeliest(
    model: EpalmModel, batch: int, length: int, answers: list[tuple[int, ...]]
) -> None:
    features, ids = small_inputs(model, batch, length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_WHOLE", 0)
        chosen = choose_answers(model, features, ids, AnswerTree(answers, VOCABULARY, CPU), beams=len(answers))
    assert _best(_alone(model, features, ids, answers), torch.tensor(chosen))


@given(models(), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_of_many_answers_a_search_finds_one_of_the_list(model: EpalmModel, batch: int, beams: int, seed: int) -> None:
    rng = random.Random(seed)
    listed = sorted({(*(rng.randrange(3, 30) for _ in range(rng.randrange(1, 5))), EOS) for _ in range(120)})
    assert len(listed) > module.MOST_WHOLE
    features, ids = small_inputs(model, batch, 3)
    tree = AnswerTree(listed, VOCABULARY, CPU)
    chosen = choose_answers(model, features, ids, tree, beams=beams)
    assert all(0 <= place < len(listed) for place in chosen)
    narrow, wide = (
        _alone(model, features, ids, [listed[place] for place in places]).diagonal()
        for places in (chosen, choose_answers(model, features, ids, tree, beams=20))
    )
    assert (wide >= narrow - 1e-3).float().mean() >= 0.5  # more beams seldom find a worse one


def test_the_tree_allows_the_answers_and_nothing_else() -> None:
    listed = [(5, EOS), (5, 6, EOS), (5, 6, 7, EOS), (8, EOS), (8, 6, 7, EOS)]
    tree = AnswerTree(listed, VOCABULARY, CPU)
    found: set[tuple[int, ...]] = set()
    level: list[tuple[tuple[int, ...], torch.Tensor]] = [((), torch.tensor(0))]
    while level:
        (way, node), *level = level
        rows, tokens = tree.allowed(node[None])
        assert rows.tolist() == [0] * len(tokens)
        if not len(tokens):
            found.add(way)
        level += [((*way, token), tree.follow(node, torch.tensor(token))) for token in tokens.tolist()]
    assert found == set(listed)
    together = tree.allowed(torch.tensor([0, 2, 0]))
    assert [row.tolist() for row in together] == [[0, 0, 1, 1, 2, 2], [5, 8, 2, 6, 5, 8]]


def test_medium_and_question_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(small_config(), Injection(2, 1, 3), length=2)
    features, ids = small_inputs(model, 2, 3)
    computed: list[tuple[int, ...]] = []
    forward = AugmentedOPT.forward

    def counted(lm: AugmentedOPT, ids: torch.Tensor, **words: Any) -> Any:
        computed.append(tuple(ids.shape))
        return forward(lm, ids, **words)

    monkeypatch.setattr(AugmentedOPT, "forward", counted)
    score_answers(model, features, ids, [(5, EOS), (5, 6, EOS), (8, 6, 7, EOS)])
    assert computed == [(2, model.lm.front + 3), (2 * 3, 3)]  # the prefix once; each answer but for its end


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
