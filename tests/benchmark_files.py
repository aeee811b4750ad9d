"""Tiny files in the form in which each benchmark's authors publish theirs, made up, and the media that they name.

Every form has a few media of train and of the splits that have answers, with the keys that are not read as well.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEN = ["yes"] * 4 + ["no"] * 3 + ["maybe", "maybe", "a cat"]


def _ten(answers: Sequence[str], **more: str) -> list[dict[str, Any]]:
    return [{"answer": a, "answer_confidence": "yes", "answer_id": n, **more} for n, a in enumerate(answers, 1)]


def _vqa(subset: str, *questions: tuple[int, int, str]) -> dict[str, Any]:
    rows = [{"image_id": image, "question": text, "question_id": name} for name, image, text in questions]
    head = {"info": {"version": "2.0"}, "task_type": "Open-Ended", "data_type": "mscoco", "license": {}}
    return {**head, "data_subtype": subset, "questions": rows}


def _annotations(answers: dict[int, Sequence[str]], question_type: str, **more: Any) -> dict[str, Any]:
    rows = [
        {"question_type": question_type, "multiple_choice_answer": given[0], "answers": _ten(given), "image_id": 9,
         "answer_type": "yes/no", "question_id": name}
        for name, given in answers.items()
    ]  # fmt: skip
    return {"info": {}, "license": {}, "annotations": rows, **more}


def _labelled(medium: str, key: str, name: int, label: Any) -> list[dict[str, Any]]:
    types = {"question_type": "what is", "answer_type": "other"}
    return [{"question_id": name, key: medium, "sent": "What is it?", "label": label, **types}]


def _gqa(image: str, answer: str | None) -> dict[str, Any]:
    types = {"structural": "query", "semantic": "attr", "detailed": "color"}
    given = {"answer": answer, "fullAnswer": f"It is {answer}."} if answer else {}
    return {"imageId": image, "question": "What color is it?", "types": types, "isBalanced": True, **given}


def _karpathy(name: int, subset: str, split: str, *captions: str) -> dict[str, Any]:
    sentences = [{"tokens": text.split(), "raw": text, "imgid": 0, "sentid": n} for n, text in enumerate(captions)]
    file = f"COCO_{subset}_{name:012}.jpg"
    return {"filepath": subset, "filename": file, "imgid": 0, "split": split, "sentences": sentences, "cocoid": name}


def _coco(name: int, file: str, *captions: str) -> dict[str, Any]:
    images = [{"license": 5, "file_name": file, "coco_url": "http://x.org/1.jpg", "height": 4, "width": 4, "id": name}]
    rows = [{"image_id": name, "id": n, "caption": text} for n, text in enumerate(captions)]
    return {"info": {}, "images": images, "licenses": [{"id": 5}], "annotations": rows}


def _msrvtt(split_of: dict[str, str]) -> dict[str, Any]:
    videos = [
        {"category": 9, "url": "https://x.org", "video_id": v, "start time": 1.5, "end time": 9, "split": s, "id": 0}
        for v, s in split_of.items()
    ]
    texts = [{"caption": f"a {n} moves {v}", "video_id": v, "sen_id": n} for n in (1, 2) for v in split_of]
    return {"info": {}, "videos": videos, "sentences": texts}


def _qa(first: int, video: int, *answers: str) -> list[dict[str, Any]]:
    rows = [{"category_id": 1, "video_id": video, "question": "what moves?", "answer": answer} for answer in answers]
    return [{**row, "id": first + n} for n, row in enumerate(rows)]


def _text_vqa(name: str, split: str, count: int, **answers: Any) -> dict[str, Any]:
    rows = [
        {"question": "what is the brand?", "image_id": name, "question_id": 34602 + n, "set_name": split, **answers,
         "image_classes": ["Belt"], "flickr_300k_url": "https://x.org/1.jpg"}
        for n in range(count)
    ]  # fmt: skip
    return {"dataset_type": split, "dataset_name": "textvqa", "dataset_version": "0.5.1", "data": rows}


def _text_caps(name: str, split: str, references: list[str], *captions: str) -> dict[str, Any]:
    rows = [
        {"caption_str": text, "caption_id": n, "image_id": name, "reference_strs": references, "set_name": split}
        for n, text in enumerate(captions)
    ]
    return {"dataset_type": split, "dataset_name": "textcaps", "data": rows}


def _aokvqa(split: str, image: int, name: str, **answers: Any) -> dict[str, Any]:
    choices = {"choices": ["a", "b", "c", "d"], "correct_choice_idx": 3, "rationales": ["r"] * 3}
    return {"split": split, "image_id": image, "question_id": name, "question": "What is it?", **choices, **answers}


_CLOTHO = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n{},a beep,two beeps,it beeps,beep,beeping\n"
_AUDIOCAPS = "audiocap_id,youtube_id,start_time,caption\n"
_IMAGE_TRAIN, _IMAGE_VAL = "train2014/COCO_train2014_000000000009.jpg", "val2014/COCO_val2014_000000262148.jpg"

Files = dict[str, Any]
FORMS: dict[str, tuple[Files, tuple[str, ...]]] = {
    "vqa-v2/official": (
        {
            "v2_OpenEnded_mscoco_train2014_questions.json": _vqa("train2014", (9000, 9, "Is it?"), (9001, 9, "Or?")),
            "v2_mscoco_train2014_annotations.json": _annotations({9001: ["no"] * 10, 9000: TEN}, "is it"),
            "v2_OpenEnded_mscoco_val2014_questions.json": _vqa("val2014", (262148000, 262148, "Who is it?")),
            "v2_mscoco_val2014_annotations.json": _annotations({262148000: [""] * 10}, "none of the above"),
            "v2_OpenEnded_mscoco_test-dev2015_questions.json": _vqa("test-dev2015", (1000, 1, "Is it?")),
            "v2_OpenEnded_mscoco_test2015_questions.json": _vqa("test2015", (1000, 1, "Is it?")),
        },
        (_IMAGE_TRAIN, _IMAGE_VAL, "test2015/COCO_test2015_000000000001.jpg"),
    ),
    "vqa-v2/karpathy": (
        {
            "karpathy_train.json": _labelled("COCO_train2014_000000000009", "img_id", 9000, {"net": 1, "web": 0.3}),
            "karpathy_val.json": _labelled("COCO_val2014_000000262148", "img_id", 9001, {"net": 1}),
            "karpathy_test.json": _labelled("COCO_val2014_000000262148", "img_id", 262148000, {}),
        },
        (_IMAGE_TRAIN, _IMAGE_VAL),
    ),
    "gqa/official": (
        {
            "train_balanced_questions.json": {"02930152": _gqa("2354786", "sky"), "02930153": _gqa("n161313", "red")},
            "testdev_balanced_questions.json": {"201307251": _gqa("n161313", "blue")},
            "test_balanced_questions.json": {"201971873": _gqa("n161313", None)},
        },
        ("images/2354786.jpg", "images/n161313.jpg"),
    ),
    "gqa/list": (
        {
            "train.json": [{"img_id": "2354786", "sent": "Is it?", "label": {"no": 1.0}, "question_id": "07333408"}],
            "testdev.json": [{"img_id": "n161313", "sent": "Is it?", "label": {"yes": 1.0}, "question_id": "20130725"}],
        },
        ("images/2354786.jpg", "images/n161313.jpg"),
    ),
    "coco-caption/karpathy": (
        {
            "dataset_coco.json": {
                "images": [
                    _karpathy(262148, "val2014", "restval", "A cat sits. ", "a cat"),
                    _karpathy(9, "train2014", "train", "A dog."),
                    _karpathy(262149, "val2014", "test", "A cow.", "a cow stands"),
                ],
                "dataset": "coco",
            }
        },
        (_IMAGE_VAL, _IMAGE_TRAIN, "val2014/COCO_val2014_000000262149.jpg"),
    ),
    "coco-caption/official-2014": (
        {
            "annotations/captions_train2014.json": _coco(9, "COCO_train2014_000000000009.jpg", "A dog.", "a dog\n"),
            "annotations/captions_val2014.json": _coco(262148, "COCO_val2014_000000262148.jpg", "A cat."),
        },
        (_IMAGE_TRAIN, _IMAGE_VAL),
    ),
    "coco-caption/official-2017": (
        {"captions_train2017.json": _coco(9, "000000000009.jpg", "A dog.", "A dog.")},
        ("train2017/000000000009.jpg",),
    ),
    "ok-vqa/official": (
        {
            "OpenEnded_mscoco_train2014_questions.json": _vqa("train2014", (95, 9, "What is it for?")),
            "mscoco_train2014_annotations.json": _annotations({95: TEN}, "one", question_types={"one": "Vehicles"}),
            "OpenEnded_mscoco_val2014_questions.json": _vqa("val2014", (2971475, 262148, "What is it for?")),
            "mscoco_val2014_annotations.json": _annotations({2971475: TEN}, "other"),
        },
        (_IMAGE_TRAIN, _IMAGE_VAL),
    ),
    "a-okvqa/official": (
        {
            "aokvqa_v1p0_train.json": [_aokvqa("train", 9, "22Mex", direct_answers=TEN, difficult_direct_answer=True)],
            "aokvqa_v1p0_val.json": [
                _aokvqa("val", 262148, "22jbM", direct_answers=TEN, difficult_direct_answer=False),
                _aokvqa("val", 262148, "22jbN", direct_answers=TEN, difficult_direct_answer=True),
            ],
            "aokvqa_v1p0_test.json": [_aokvqa("test", 1, "2eQTm", difficult_direct_answer=False)],
        },
        ("train2017/000000000009.jpg", "val2017/000000262148.jpg", "test2017/000000000001.jpg"),
    ),
    "textvqa/official": (
        {
            "TextVQA_0.5.1_train.json": _text_vqa("0054c91397f2fe05", "train", 2, answers=TEN),
            "TextVQA_0.5.1_val.json": _text_vqa("003a8ae2ef43b901", "val", 1, answers=TEN),
            "TextVQA_0.5.1_test.json": _text_vqa("16e8e7d4f5f6cd8d", "test", 1),
        },
        ("train_images/0054c91397f2fe05.jpg", "train_images/003a8ae2ef43b901.jpg", "test_images/16e8e7d4f5f6cd8d.jpg"),
    ),
    "textcaps/official": (
        {
            "TextCaps_0.1_train.json": _text_caps("0054c91397f2fe05", "train", ["a b", "a c"], "a b", "a c"),
            "TextCaps_0.1_val.json": _text_caps("003a8ae2ef43b901", "val", ["a d"], "a d"),
        },
        ("train_images/0054c91397f2fe05.jpg", "train_images/003a8ae2ef43b901.jpg"),
    ),
    "msrvtt-qa/official": (
        {"train_qa.json": _qa(0, 0, "dog", "cat"), "val_qa.json": _qa(9, 1, "ox"), "test_qa.json": _qa(5, 7010, "ox")},
        ("videos/video0.mp4", "videos/video1.mp4", "videos/video7010.mp4"),
    ),
    "msrvtt-qa/list": (
        {
            "msrvtt_vqa_train.json": _labelled("video0.mp4", "video", 1, {"dog": 1.0}),
            "msrvtt_vqa_test.json": [{"video": "video7010", "question": "who?", "answer": "man", "answer_type": "who"}],
        },
        ("videos/all/video0.mp4", "videos/all/video7010.mp4"),
    ),
    "msvd-qa/official": (
        {
            "train_qa.json": _qa(0, 1, "dog"),
            "test_qa.json": _qa(4, 1301, "cow"),
            "youtube_mapping.txt": "-4wsuPCjDBc_5_15 vid1\n_UqnaMwkFF4_3_9 vid1301\n",
        },
        ("YouTubeClips/-4wsuPCjDBc_5_15.avi", "YouTubeClips/_UqnaMwkFF4_3_9.avi"),
    ),
    "msvd-qa/list": (
        {
            "msvd_vqa_train.json": _labelled("-4wsuPCjDBc_5_15.avi", "video", 1, "dog"),
            "msvd_vqa_test.json": _labelled("_UqnaMwkFF4_3_9.avi", "video", 1, {"cow": 1}),
        },
        ("videos/all/-4wsuPCjDBc_5_15.avi", "videos/all/_UqnaMwkFF4_3_9.avi"),
    ),
    "msrvtt-caption/official": (
        {"MSRVTT_data.json": _msrvtt({"video0": "train", "video6513": "validate", "video7010": "test"})},
        ("videos/video0.mp4", "videos/video6513.mp4", "videos/video7010.mp4"),
    ),
    "msrvtt-caption/list": (
        {
            "msrvtt_caption_train7k.json": [{"video": "video0.mp4", "caption": text} for text in ("a dog", "dogs")],
            "msrvtt_caption_test.json": [{"video": "video7010.mp4", "caption": ["a cow", "cows"]}],
        },
        ("videos/all/video0.mp4", "videos/all/video7010.mp4"),
    ),
    "audiocaps/official": (
        {
            "train.csv": f"{_AUDIOCAPS}91139,r1nicOVtvkQ,130,\"A woman talks, nearby\"\n58146,-1nilez17Dg,30,A dog\n",
            "val.csv": f"{_AUDIOCAPS}97151,vfY_TJq7n_U,130,Ducks\n107890,vfY_TJq7n_U,130,Ducks quack\n",
            "test.csv": f"{_AUDIOCAPS}103549,7fmOlUlwoNg,0,A bell\n103548,7fmOlUlwoNg,0,A bell rings\n",
        },
        ("audio/train/r1nicOVtvkQ_130.wav", "audio/train/-1nilez17Dg.wav", "audio/val/YvfY_TJq7n_U.wav",
         "audio/test/7fmOlUlwoNg_0_10.wav"),
    ),
    "clotho/official": (
        {
            "clotho_captions_development.csv": _CLOTHO.format("Distorted AM Radio noise.wav"),
            "clotho_captions_validation.csv": _CLOTHO.format("01 rumble.wav"),
            "clotho_captions_evaluation.csv": _CLOTHO.format("\"Santa, Motor.wav\""),
        },
        ("development/Distorted AM Radio noise.wav", "validation/01 rumble.wav", "evaluation/Santa, Motor.wav"),
    ),
}  # fmt: skip


def write_form(spec: str, root: Path, media: Sequence[Path] = ()) -> Path:
    """The form's files below a root; its media are copies of these in turn, or empty files. Returns the root."""
    files, names = FORMS[spec]
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content if isinstance(content, str) else json.dumps(content))
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if media:
            shutil.copyfile(media[number % len(media)], root / name)
        else:
            (root / name).touch()
    return root
