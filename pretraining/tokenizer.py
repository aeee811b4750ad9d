"""The playground's tokenizer: byte-level BPE in the form of OPT's, learnt from the world's own sentences."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from epalm.playground.world import captions, scenes
from epalm.samples import Modality
from pretraining.corpus import questions

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # ids 0 to 3, as in OPT
_VOCABULARY = 640


def make_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Learn the tokenizer, save it as a transformers folder and return it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = []
    for modality in Modality:
        for scene in scenes(modality):
            asked = questions(scene)
            # Each value stands alone as well: an answer comes without the space of a word within a sentence.
            lines += [*captions(scene), *(q for _, q, _ in asked), *(a for _, _, a in asked)]
            lines.append(" " + " ".join(scene.values) + ".")
    tokenizer.train_from_iterator(lines, trainer)
    # OPT puts </s> in front, and nothing behind.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", 2)]
    )
    tokenizer.add_special_tokens([AddedToken("</a>", special=True, normalized=False)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="</s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)
    return fast
