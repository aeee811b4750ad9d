"""TextVQA and TextCaps: questions about what is written in a picture, and captions that read it.

{"data": [{"image_id", "question", "question_id", "answers": [ten]}, …]} (textvqa.org/dataset). An entry of TextCaps has
one caption, {"image_id", "caption_str"}, and may repeat all of its picture's as "reference_strs"; those are taken once
for each picture (textvqa.org/textcaps/dataset). The pictures of train and val lie in `train_images`.
"""

from epalm.datasets.benchmark import Benchmark, Files
from epalm.samples import Modality, Task

TEXTVQA = Benchmark("textvqa", "TextVQA", "https://textvqa.org/dataset/", Modality.IMAGE, Task.QA)
TEXTCAPS = Benchmark("textcaps", "TextCaps", "https://textvqa.org/textcaps/dataset/", Modality.IMAGE, Task.CAPTION)
_TRAIN = ("train_images", "images/train_images", "train_val_images/train_images", "images")
_TEST = ("test_images", "images/test_images", "images")
_PICTURES = {"images": {"train": _TRAIN, "val": _TRAIN, "test": _TEST}}


@TEXTVQA.form("official: a file of questions for each split", {"questions": "TextVQA_0.5.1_{}.json"}, _PICTURES)
def _questions(files: Files) -> None:
    for entry in files.json("questions", "data"):
        picture = f"{files.folder(entry.split)}/{entry.name('image_id')}.jpg"
        raw = [] if entry.split == "test" else entry.texts("answers")
        files.add_question(entry, entry.name("question_id"), picture, entry.text("question"), None, raw)


@TEXTCAPS.form("official: a file of captions for each split", {"captions": "TextCaps_0.1_{}.json"}, _PICTURES)
def _captions(files: Files) -> None:
    whole: set[tuple[str, str]] = set()  # pictures that have all of their captions
    for entry in files.json("captions", "data"):
        name, captions = entry.name("image_id"), list[str]()
        if entry.split != "test" and (entry.split, name) not in whole:
            several = "reference_strs" in entry
            captions = entry.texts("reference_strs") if several else [entry.text("caption_str")]
            whole |= {(entry.split, name)} if several else set()
        files.add_captions(entry, name, f"{files.folder(entry.split)}/{name}.jpg", captions)
