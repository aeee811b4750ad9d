"""Tiny tokenizers built as those of published language models are, trained on a few words."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_CORPUS = (
    "Question: What color is the sign? Answer: red",
    "Question: How many dogs are there? Answer: two dogs.",
    "Question: what is it? Answer: a big blue circle, 3 of them (mostly)",
    "Caption: a red circle on the left of a small green square",
    "two lines\n\n",
    "user\nDescribe it.\nassistant\na dog runs from left to right",
)
# The pieces that Llama 3 and Qwen 2 cut texts into.
_WORDS = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TURNS = (  # of Gemma: BOS is the template's, and EOS ends no turn
    "<bos>{% for m in messages %}<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def _byte_level(special: tuple[str, ...], *, words: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not words)
    split = pre_tokenizers.Split(_WORDS, "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pieces]) if words else pieces
    tokenizer.decoder = decoders.ByteLevel()
    _train(tokenizer, special, pre_tokenizers.ByteLevel.alphabet())
    return tokenizer


def _sentence_piece(special: tuple[str, ...], *, scheme: str) -> Tokenizer:
    """`scheme`: prepend, as Llama 2 writes it; else that of Metaspace, or without a space in front, as Gemma."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    space = normalizers.Replace(" ", "▁")
    back = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    if scheme == "never":
        back.pop()
    tokenizer.decoder = decoders.Sequence(back)
    words: Any = pre_tokenizers.Split("▁", "merged_with_next")
    if scheme in ("prepend", "never"):
        front = [normalizers.Prepend("▁")] if scheme == "prepend" else []
        tokenizer.normalizer = normalizers.Sequence([*front, space])
    else:
        words = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    # Lines are apart while it is trained alone: pieces do not reach over them.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split("\n", "isolated"), words])
    _train(tokenizer, special, [])
    tokenizer.pre_tokenizer = words
    rules = json.loads(tokenizer.to_str())
    vocabulary = rules["model"]["vocab"]  # bytes are words of it, and no special tokens
    vocabulary |= {f"<0x{byte:02X}>": len(vocabulary) + byte for byte in range(256)}
    if scheme == "prepend":
        rules["pre_tokenizer"] = None
    return Tokenizer.from_str(json.dumps(rules))


def _train(tokenizer: Tokenizer, special: tuple[str, ...], alphabet: list[str]) -> None:
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)


def _with_bos(tokenizer: Tokenizer, *bos: str) -> Tokenizer:
    ids = [(token, tokenizer.token_to_id(token)) for token in bos]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join((*bos, "$A")), pair=" ".join((*bos, "$A", *bos, "$B")), special_tokens=ids
    )
    return tokenizer


def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Of one kind of `KINDS`."""
    return KINDS[kind]()


def _gpt2() -> PreTrainedTokenizerFast:
    end = "<|endoftext|>"
    rules = _byte_level((end,), words=False)
    return PreTrainedTokenizerFast(tokenizer_object=rules, bos_token=end, eos_token=end, unk_token=end)


def _llama3() -> PreTrainedTokenizerFast:
    bos, eos = "<|begin_of_text|>", "<|end_of_text|>"
    rules = _with_bos(_byte_level((bos, eos, "<|eot_id|>"), words=True), bos)
    return PreTrainedTokenizerFast(tokenizer_object=rules, bos_token=bos, eos_token=eos)


def _qwen2() -> PreTrainedTokenizerFast:
    rules = _byte_level(("<|endoftext|>", "<|im_start|>", "<|im_end|>"), words=True)
    made = PreTrainedTokenizerFast(tokenizer_object=rules, eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    made.chat_template = _CHATML
    return made


def _glm4() -> PreTrainedTokenizerFast:
    rules = _with_bos(_byte_level(("<|endoftext|>", "[gMASK]", "<sop>"), words=True), "[gMASK]", "<sop>")
    return PreTrainedTokenizerFast(tokenizer_object=rules, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def _llama2(scheme: str = "prepend") -> PreTrainedTokenizerFast:
    rules = _with_bos(_sentence_piece(("<unk>", "<s>", "</s>"), scheme=scheme), "<s>")
    return PreTrainedTokenizerFast(tokenizer_object=rules, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def _gemma() -> PreTrainedTokenizerFast:
    names = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
    rules = _with_bos(_sentence_piece(names, scheme="never"), "<bos>")
    made = PreTrainedTokenizerFast(
        tokenizer_object=rules, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    made.chat_template = _TURNS
    return made


KINDS = {
    "gpt2": _gpt2,
    "llama3": _llama3,
    "qwen2": _qwen2,
    "glm4": _glm4,
    "llama2": _llama2,
    "mistral": lambda: _llama2("first"),
    "always": lambda: _llama2("always"),
    "gemma": _gemma,
}


def save_tokenizer(kind: str, folder: Path) -> int:
    """Write one into a folder; how many ids it has."""
    made = tokenizer(kind)
    made.save_pretrained(folder)
    return len(made)
