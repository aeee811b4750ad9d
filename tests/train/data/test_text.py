"""Text is text: what a person writes becomes the tokens of its characters, control tokens' names included."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epalm.playground import weights_folder
from epalm.samples import Modality, Sample, Task
from epalm.train.data.text import TextFormat, Texts, load_text_format
from epalm.train.lm.load import load_lm

CONTROL = ("</s>", "</a>", "<pad>", "<s>", "<unk>")
written = st.lists(st.sampled_from((*CONTROL, " ", "a", " sign", "é", "<", ">", "?", "/s>")), max_size=12).map("".join)
ordinary = st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=30)


@pytest.fixture(scope="module", params=["as shipped", "not special in tokenizer.json"])
def text(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextFormat:
    """Of the playground's language model; and of one whose tokenizer has control tokens as plain added ones."""
    folder = tmp_path_factory.mktemp("lm") / "lm"
    shutil.copytree(weights_folder("lm"), folder)
    if request.param != "as shipped":
        rules = json.loads((folder / "tokenizer.json").read_text())
        for token in rules["added_tokens"]:
            token["special"] = token["content"] in ("<s>", "<unk>")
        (folder / "tokenizer.json").write_text(json.dumps(rules))
    return load_text_format(str(folder), load_lm("playground"))


def _question(words: str) -> Sample:
    return Sample("1", Modality.IMAGE, "1.png", Task.QA, "train", words, {"a": 1.0})


@given(written)
def test_no_text_makes_a_control_token(text: TextFormat, words: str) -> None:
    (ids,) = text.tokenise([words])
    special = set(text.tokenizer.all_special_ids) | text.control
    assert not special & set(ids.tolist())
    assert text.decode(ids.tolist()) == words.strip()


@given(written, written)
def test_a_training_text_has_the_control_tokens_of_the_format_alone(text: TextFormat, words: str, answer: str) -> None:
    sample = _question(words)
    texts = Texts(text, [text.question(sample), ""], [[answer], [answer]], [[1.0], [1.0]])
    asked, captioned = texts.text(0, 0), texts.text(1, 1)
    answer_token = text.tokenizer.convert_tokens_to_ids("</a>")
    assert np.flatnonzero(asked.ids == answer_token).tolist() == [asked.target - 1]
    assert np.flatnonzero(asked.ids == text.eos).tolist() == [0, len(asked.ids) - 1]  # `</s>` stands in front, too
    assert text.given(sample) == tuple(asked.ids[: asked.target].tolist())
    assert captioned.target == 1 and not (captioned.ids == answer_token).any()
    assert text.decode(asked.ids[asked.target :].tolist()) == text.decode(captioned.ids[1:].tolist()) == answer.strip()
    assert texts.lengths(np.array([0, 1])).tolist() == [len(asked.ids), len(captioned.ids)]


@given(ordinary)
def test_ordinary_texts_have_the_ids_of_the_whole_format_read_as_text(text: TextFormat, words: str) -> None:
    plain = text.tokenizer(f"{text.question(_question(words))}</a>", add_special_tokens=False)["input_ids"]
    assert text.given(_question(words)) == (*text.start, *plain)


def test_what_is_generated_ends_at_the_control_token_alone(text: TextFormat) -> None:
    (ids,) = text.tokenise(["a sign that reads </s> in red"])
    assert text.decode([*ids.tolist(), text.eos, *ids.tolist()]) == "a sign that reads </s> in red"


def test_control_tokens_cannot_be_told_from_their_characters(tmp_path: Path) -> None:
    """A tokenizer whose own vocabulary makes one of them out of characters is refused."""
    from epalm.errors import UsageError

    folder = tmp_path / "lm"
    shutil.copytree(weights_folder("lm"), folder)
    rules = json.loads((folder / "tokenizer.json").read_text())
    rules["pre_tokenizer"], rules["model"]["ignore_merges"] = None, True
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    with pytest.raises(UsageError, match="turns the characters of its control tokens"):
        load_text_format(str(folder), load_lm("playground"))
