"""Text formats of any language model: what is trained on is what the tokenizer makes of the whole text read at once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, PreTrainedTokenizerFast

from epalm.errors import UsageError
from epalm.fingerprint import digest_json
from epalm.recipes.config import load_config, read_config
from epalm.recipes.settings import TextSettings
from epalm.samples import Modality, Sample, Task
from epalm.train.data.text import TextFormat, Texts, load_text_format
from tests.tiny_tokenizers import KINDS, save_tokenizer, tokenizer

words = st.text("aeiodrstQW 3('.,:é数\n", min_size=1, max_size=20).filter(str.strip)
OWN = "Q: {question}\nA:\n"


def _sample(prompt: str | None) -> Sample:
    task = Task.CAPTION if prompt is None else Task.QA
    return Sample("1", Modality.IMAGE, "1.png", task, "train", prompt, {"a": 1.0}, references=("a",))


def _folder(kind: str, folder: Path, **config: object) -> str:
    size = save_tokenizer(kind, folder)
    LlamaConfig(**{"vocab_size": size, "bos_token_id": None, "eos_token_id": None} | config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return _folder(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module", params=[None, OWN, "{question}", "It shows {question} :  "])
def text(request: pytest.FixtureRequest, folder: str) -> TextFormat:
    return load_text_format(folder, None, TextSettings(template=request.param))


def _read_at_once(text: TextFormat, whole: str) -> list[int]:
    ids: list[int] = text.tokenizer(whole, add_special_tokens=False)["input_ids"]
    return [*text.start, *ids, text.eos]


@settings(max_examples=20)
@given(words, words)
def test_what_is_trained_on_is_the_text_read_at_once(text: TextFormat, question: str, answer: str) -> None:
    template, caption = text.settings.template, text.settings.caption
    assert template and caption
    samples = [_sample(question), _sample(None)]
    texts = Texts(text, [text.question(one) for one in samples], [[answer], [answer]], [[1.0], [1.0]])
    asked, captioned = texts.text(0, 0), texts.text(1, 1)
    space = "" if template.endswith("\n") else " "
    shown = template.rstrip(" ").replace("{question}", question.strip())
    assert asked.ids.tolist() == _read_at_once(text, f"{shown}{space}{answer.strip()}")
    assert captioned.ids.tolist() == _read_at_once(text, f"{caption} {answer.strip()}")
    for one, sample in zip((asked, captioned), samples, strict=True):
        assert text.given(sample) == tuple(one.ids[: one.target].tolist())
        assert text.decode(one.ids[one.target :].tolist()) == answer.strip()
    asks, starts, ends = texts.decoded_lengths()
    assert asks.tolist() == [True, False]
    assert starts.tolist() == [asked.target, captioned.target]
    assert (ends + 1).tolist() == texts.lengths(np.array([0, 1])).tolist() == [len(asked.ids), len(captioned.ids)]


def test_bos_is_as_the_tokenizer_has_it_unless_a_setting_says_so(folder: str, request: pytest.FixtureRequest) -> None:
    text = load_text_format(folder)
    own = text.tokenizer("a")["input_ids"]
    assert [*text.start, *text.tokenizer("a", add_special_tokens=False)["input_ids"]] == own
    assert load_text_format(folder, None, TextSettings(add_bos=False)).start == ()
    asked = TextSettings(add_bos=True)
    if text.start or text.tokenizer.bos_token_id is not None:
        assert load_text_format(folder, None, asked).start == (text.start or (text.tokenizer.bos_token_id,))
    else:
        with pytest.raises(UsageError, match="no BOS to put in front"):
            load_text_format(folder, None, asked)


@settings(max_examples=10)
@given(st.lists(st.sampled_from(("<s>", "</s>", "<|im_end|>", "<end_of_turn>", "<eos>", " ", "a")), max_size=9))
def test_control_tokens_in_texts_are_characters(text: TextFormat, parts: list[str]) -> None:
    written = "".join(parts)
    plain = Texts(text, ["a", ""], [["a"], ["a"]], [[1.0], [1.0]])
    texts = Texts(text, [f"a {written} a", ""], [[written], [written]], [[1.0], [1.0]])
    special = sorted({*text.tokenizer.all_special_ids, *text.control} - {text.tokenizer.unk_token_id} | {text.eos})
    for item in (0, 1):
        counts = [np.isin(one.text(item, item).ids, special).sum() for one in (plain, texts)]
        assert counts[0] == counts[1]


@pytest.mark.parametrize(("kind", "end"), [("qwen2", "<|im_end|>"), ("gemma", "<end_of_turn>")])
def test_a_chat_template_is_what_the_tokenizer_renders(kind: str, end: str, tmp_path: Path) -> None:
    folder = _folder(kind, tmp_path)
    text = load_text_format(folder, None, TextSettings(template="chat", caption="What does it show?"))
    rendered = tokenizer(kind)
    for prompt in ("What color is the sign?", "(3) dogs, how many?", None):
        content = prompt or "What does it show?"
        turn = [{"role": "user", "content": content}]
        ids = rendered.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
        assert text.given(_sample(prompt)) == tuple(ids)
    (answer,) = Texts(text, ["what"], [["two dogs."]], [[1.0]]).text(0, 0).ids[-1:].tolist()
    assert answer == text.eos == rendered.convert_tokens_to_ids(end)
    assert load_text_format(folder, None, text.settings).digest == text.digest  # what a run keeps is all that it takes
    assert text.eos not in text.given(_sample(f"a{end}b"))[:4]


def test_a_second_bos_is_refused(tmp_path: Path) -> None:
    folder = _folder("gemma", tmp_path)
    for template in ("chat", "<bos>{question}"):
        with pytest.raises(UsageError, match="begins with BOS and gets another") as caught:
            load_text_format(folder, None, TextSettings(template=template, add_bos=True))
        assert caught.value.hint == "--set text.add_bos=false"
    assert load_text_format(folder, None, TextSettings(template="<bos>{question}", add_bos=False)).start == ()


@pytest.mark.parametrize(
    ("kind", "asked", "config", "fault"),
    [
        ("gpt2", {"template": "chat"}, {}, "no chat template"),
        ("gpt2", {"caption": ""}, {}, "nothing stands where a caption begins"),
        ("gpt2", {"eos": "<stop>"}, {}, "no token '<stop>'"),
        ("gpt2", {}, {"vocab_size": 300}, "300 word embeddings, and its tokenizer ids up to"),
        ("gpt2", {"template": "{question}</a>"}, {}, r"ids up to \d+ \(</a>\)"),
        ("gpt2", {"template": "{question}\n\n"}, {}, "read at once"),  # its line breaks are two where a word follows
    ],
)
def test_what_does_not_fit_is_one_message(
    kind: str, asked: dict[str, Any], config: dict[str, int], fault: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=fault) as caught:
        load_text_format(_folder(kind, tmp_path, **config), None, TextSettings(**asked))
    assert caught.value.hint


def test_end_of_text_is_the_tokenizers_else_the_configurations_else_missing(tmp_path: Path) -> None:
    PreTrainedTokenizerFast(tokenizer_object=tokenizer("gpt2").backend_tokenizer).save_pretrained(tmp_path)
    for eos, number in ((0, 0), ([0, 5], 0), (None, None)):
        LlamaConfig(vocab_size=900, bos_token_id=None, eos_token_id=eos, pad_token_id=-1).save_pretrained(tmp_path)
        if number is None:
            with pytest.raises(UsageError, match="no EOS: nothing can end an answer"):
                load_text_format(str(tmp_path))
        text = load_text_format(str(tmp_path), None, TextSettings(eos="<|endoftext|>") if number is None else None)
        assert (text.eos, text.pad) == (0, 0)


def test_special_tokens_without_embedding_are_fine_where_no_text_has_them(tmp_path: Path) -> None:
    folder = _folder("gpt2", tmp_path)
    size = json.loads((tmp_path / "config.json").read_text())["vocab_size"]
    large = tokenizer("gpt2")
    large.add_special_tokens({"extra_special_tokens": ["<image>"]})
    large.save_pretrained(tmp_path)
    assert load_text_format(folder).given(_sample("a <image>")) and max(large.get_vocab().values()) == size


def test_a_template_without_place_for_the_question_is_a_fault_of_the_settings() -> None:
    with pytest.raises(UsageError, match="'Answer:' has no place for the question"):
        load_config("own", ["text.template=Answer:", "optim.epochs=2"])


def test_settings_that_came_later_are_no_part_of_a_run_s_name_unless_set() -> None:
    config = load_config("vqa-v2")
    settings = config.model_dump(mode="json")
    assert "text" not in settings and "tokens" not in settings["encoder"]
    changed = load_config("vqa-v2", ["text.caption=It shows", "encoder.tokens=mean"])
    settings = changed.model_dump(mode="json")
    assert settings["text"]["caption"] == "It shows" and settings["encoder"]["tokens"] == "mean"
    for one in (config, changed):
        assert read_config(one.to_toml(), "x") == one
    with pytest.raises(UsageError, match=r"did you mean text\.template\?"):
        load_config("own", ["text.templte=x"])


def test_published_format_is_named_as_before_there_was_a_choice() -> None:
    """So runs of an OPT keep their keys, and predictions theirs."""
    text = load_text_format("playground")
    rules = text.tokenizer.backend_tokenizer.to_str()
    assert text.digest == digest_json([rules, *text.start, text.eos, text.pad])
    assert text.settings == TextSettings()
    same = load_text_format("playground", None, TextSettings(template="{question}?</a>", caption="", add_bos=True))
    assert (same.settings, same.digest) == (text.settings, text.digest)
    other = load_text_format("playground", None, TextSettings(template="{question}</a>"))
    assert other.settings.template == "{question}</a>" and other.digest != text.digest
