"""An answer of a list is found, and it alone; with as many beams as answers it is the likeliest of the full model."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.errors import UsageError
from epalm.evaluate.decoding import generate as module
from epalm.evaluate.decoding.generate import AnswerTree, choose_answers
from epalm.evaluate.decoding.options import DecodeOptions, read_answers
from epalm.train.bridge.model import EpalmModel
from epalm.train.lm.injected_lm import InjectedLM
from epalm.train.lm.injection import Injection
from epalm.train.lm.loss import IGNORED
from tests.augmented_models import VOCABULARY, models, small_config, small_inputs, small_model

CPU = torch.device("cpu")
EOS = 2


def _alone(
    model: EpalmModel, features: torch.Tensor, ids: torch.Tensor, answers: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Each answer behind its question, alone, through the whole model: (B, A).

    With `reference` attention what is expected of a token depends on those behind it: these are added one by one.
    """
    columns = []
    for answer in answers:
        texts = torch.cat((ids, torch.tensor(answer).expand(len(ids), -1)), 1)
        ends = range(ids.shape[1], texts.shape[1])
        with torch.no_grad():
            if model.lm.injection.attention == "reference":
                perceived = model.perceive(features)
                steps = [model.next_logits(perceived, texts[:, :end]).log_softmax(-1) for end in ends]
                each = [step[:, token] for step, token in zip(steps, answer, strict=True)]
                columns.append(torch.stack(each).sum(0))
                continue
            labels = texts.clone()
            labels[:, : ids.shape[1]] = IGNORED
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
@settings(max_examples=20, deadline=None)
def test_as_many_beams_as_answers_find_the_likeliest(
    model: EpalmModel, batch: int, length: int, answers: list[tuple[int, ...]], one_by_one: bool
) -> None:
    features, ids = small_inputs(model, batch, length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS", 1 if one_by_one else 512)
        chosen = choose_answers(model, features, ids, AnswerTree(answers, VOCABULARY, CPU), beams=len(answers))
    alone = _alone(model, features, ids, answers)
    # Those as likely but for rounding are likeliest, too.
    assert bool((alone.max(1).values - alone.gather(1, torch.tensor(chosen)[:, None])[:, 0] < 1e-3).all())


def test_a_short_list_has_as_many_beams_and_a_long_one_a_few() -> None:
    for count, num_beams, beams in ((4, 3, 4), (64, 3, 64), (65, 3, 16), (3000, 20, 20)):
        answers = tuple(f"answer {number}" for number in range(count))
        assert DecodeOptions(num_beams, answers=answers).answer_beams == beams


@given(models(), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_of_more_answers_than_beams_a_search_finds_one_of_the_list(
    model: EpalmModel, batch: int, beams: int, seed: int
) -> None:
    rng = random.Random(seed)
    most = VOCABULARY // 2  # a search has no more beams
    listed = sorted({(*(rng.randrange(3, 30) for _ in range(rng.randrange(1, 5))), EOS) for _ in range(most)})
    assert len(listed) > beams
    features, ids = small_inputs(model, batch, 3)
    tree = AnswerTree(listed, VOCABULARY, CPU)
    chosen = choose_answers(model, features, ids, tree, beams=beams)
    assert all(0 <= place < len(listed) for place in chosen)
    narrow, wide = (
        _alone(model, features, ids, [listed[place] for place in places]).diagonal()
        for places in (chosen, choose_answers(model, features, ids, tree, beams=len(listed)))
    )
    assert bool((wide >= narrow - 1e-3).all())  # with room for every answer the search loses none


def test_the_tree_allows_the_answers_and_nothing_else() -> None:
    listed = [(5, EOS), (5, 6, EOS), (5, 6, 7, EOS), (8, EOS), (8, 6, 7, EOS)]
    tree = AnswerTree(listed, VOCABULARY, CPU)
    reached: set[tuple[int, ...]] = set()
    level: list[tuple[tuple[int, ...], torch.Tensor]] = [((), torch.tensor(0))]
    while level:
        (way, node), *level = level
        rows, tokens = tree.allowed(node[None])
        assert rows.tolist() == [0] * len(tokens)
        if not len(tokens):
            reached.add(way)
        level += [((*way, token), tree.follow(node, torch.tensor(token))) for token in tokens.tolist()]
    assert reached == set(listed)
    together = tree.allowed(torch.tensor([0, 2, 0]))
    assert [row.tolist() for row in together] == [[0, 0, 1, 1, 2, 2], [5, 8, 2, 6, 5, 8]]


def test_what_answers_share_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(5, EOS), (5, 6, EOS), (5, 6, 7, EOS), (8, EOS), (8, 6, 7, EOS)]
    model = small_model(small_config(), Injection(2, 1, 3), length=2)
    features, ids = small_inputs(model, 2, 3)
    computed: list[tuple[int, ...]] = []
    forward = InjectedLM.forward

    def counted(lm: InjectedLM, input_ids: torch.Tensor, **words: Any) -> Any:
        computed.append(tuple(input_ids.shape))
        return forward(lm, input_ids, **words)

    monkeypatch.setattr(InjectedLM, "forward", counted)
    choose_answers(model, features, ids, AnswerTree(answers, VOCABULARY, CPU), beams=len(answers))
    assert computed[0] == (2, model.lm.front + 3)  # medium and question
    assert 2 <= len(computed) <= 4 and all(length == 1 for _, length in computed[1:])  # a token of each beam a time


def test_a_file_of_answers(tmp_path: Path) -> None:
    path = tmp_path / "answers.txt"
    path.write_bytes("\ufeffyes\r\n\n  no \nyes\nprès de l'eau\n".encode())
    assert read_answers(path) == ("yes", "no", "près de l'eau")
    path.write_bytes(b"a\x1fb\nc\x0cd\n")  # no line ends
    assert read_answers(path) == ("a\x1fb", "c\x0cd")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has 0 answers"),
        (b" \n\n", "has 0 answers"),
        (b"\xff\xfe", "is not UTF-8"),
        (None, "does not exist"),
    ],
)
def test_a_file_that_cannot_be_used(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "answers.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_answers(path)
