"""What decides the numbers misses the cache, what does not hits it: as typed, with a real encoder of each modality."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from epalm.extract.inputs.fit import Fit
from epalm.extract.inputs.preprocess import AudioInput, ImageInput, Pixels, VideoInput
from epalm.samples import Modality
from tests.conftest import Epalm, save_small_vit
from tests.shards import write_tar
from tests.trials import DEPTH, TEST, TRAIN, Trial, make_trial

IMAGE, VIDEO, AUDIO = Modality.IMAGE, Modality.VIDEO, Modality.AUDIO


Change = Callable[[Trial], tuple[object, ...] | None]  # changes something; what else is to be typed


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> dict[Modality, Path]:
    """Folders of trials, extracted once."""
    roots = {modality: tmp_path_factory.mktemp(modality) for modality in Modality}
    for modality, root in roots.items():
        make_trial(root, modality)
    return roots


@pytest.fixture
def trial(request: pytest.FixtureRequest, extracted: dict[Modality, Path], epalm: Epalm, tmp_path: Path) -> Trial:
    """A copy elsewhere, as users make one: files keep their times."""
    shutil.copytree(extracted[request.param], tmp_path / "trial")
    return Trial(epalm, request.param, tmp_path / "trial")


def _last_bit(trial: Trial) -> None:
    path = trial.weights / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-4] ^= 1  # float32, little-endian
    path.write_bytes(data)


def _statistics(**values: Any) -> Change:
    def change(trial: Trial) -> None:
        if trial.modality is IMAGE:
            config = json.loads((trial.weights / "config.json").read_text())
            trial.configure("config.json", pretrained_cfg=config["pretrained_cfg"] | values)
        else:
            trial.configure("preprocessor_config.json", **values)

    return change


def _config(**values: Any) -> Change:
    return lambda trial: trial.configure("config.json", **values)


def _frames_of_vit(trial: Trial) -> tuple[object, ...]:
    return "--encoder", "vit-frames", "--weights", save_small_vit(trial.root / "vit", depth=DEPTH)


def typed(*words: object) -> Change:
    return lambda _: words


MISSES: list[tuple[str, tuple[Modality, ...], Change]] = [
    ("a weight's last bit", tuple(Modality), _last_bit),
    ("mean", (IMAGE,), _statistics(mean=[0.5, 0.5, 0.5 + 1e-7])),
    ("std", (IMAGE,), _statistics(std=[0.5, 0.5, 0.5 + 1e-7])),
    ("mean", (VIDEO,), _statistics(image_mean=[0.4, 0.4, 0.4 + 1e-7])),
    ("std", (VIDEO,), _statistics(image_std=[0.2, 0.2, 0.2 + 1e-7])),
    ("mean", (AUDIO,), _statistics(mean=-4.0 - 1e-7)),
    ("std", (AUDIO,), _statistics(std=4.5 + 1e-7)),
    ("interpolation", (IMAGE,), _statistics(interpolation="bilinear")),
    ("interpolation", (VIDEO,), _statistics(resample=2)),
    ("CLIP's statistics", (IMAGE, VIDEO), typed("--statistics", "clip")),
    ("image size", (IMAGE,), _statistics(input_size=[3, 24, 24])),
    ("sampling rate", (AUDIO,), _statistics(sampling_rate=8000)),
    ("mel bins", (AUDIO,), _config(num_mel_bins=33)),
    ("audio frames", (AUDIO,), _config(max_length=65)),
    ("activation", (VIDEO, AUDIO), _config(hidden_act="relu")),
    ("epsilon of the norms", (VIDEO, AUDIO), _config(layer_norm_eps=1e-5)),
    ("heads", (VIDEO, AUDIO), _config(num_attention_heads=4)),
    ("frame count", (VIDEO,), typed("--frames", 3)),
    ("encoder", (VIDEO,), _frames_of_vit),
    ("space only", (VIDEO,), typed("--encoder", "timesformer-space")),
    ("SpecAugment's frequency", (AUDIO,), typed("--spec-augment", "23/96")),
    ("SpecAugment's time", (AUDIO,), typed("--spec-augment", "24/95")),
    ("view seed", tuple(Modality), typed("--view-seed", 1)),
    ("dtype", tuple(Modality), typed("--dtype", "float32")),
    ("precision", tuple(Modality), typed("--precision", "bfloat16")),
    ("a layer that is not stored", tuple(Modality), typed("--layers", "all")),
    ("another layer alone", (IMAGE,), typed("--layers", "0")),
    ("reduced JPEGs", (IMAGE,), typed("--reduced-jpeg")),
    ("the processor's own resizing", (IMAGE, VIDEO), typed("--resize", "own")),
]


@pytest.mark.parametrize(
    ("trial", "change"),
    [pytest.param(one, change, id=f"{name}-{one}") for name, several, change in MISSES for one in several],
    indirect=["trial"],
)
def test_what_decides_the_numbers_misses(trial: Trial, change: Change) -> None:
    words = change(trial) or ()
    assert trial.extract(*words) == (0, TRAIN + TEST)
    assert trial.extract(*words) == (TRAIN + TEST, 0)  # and is another set from then on


@pytest.mark.parametrize("trial", Modality, indirect=True)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_one_byte_of_a_file_misses(trial: Trial, place: str) -> None:
    """Of that file alone; also when the file keeps its size and its times."""
    path = trial.media[1]
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[{"first": 0, "middle": len(data) // 2, "last": -1}[place]] ^= 1
    assert trial.extract() == (TRAIN + TEST, 0)  # the index knows the file by now
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert trial.extract() == (TRAIN + TEST - 1, 1)


def _move_media(trial: Trial) -> None:
    trial.world = trial.world.rename(trial.root / "elsewhere")


def _move_cache(trial: Trial) -> None:
    (trial.root / "deep/er").mkdir(parents=True)
    trial.cache = trial.cache.rename(trial.root / "deep/er/cache")


def _move_weights(trial: Trial) -> None:
    trial.weights = trial.weights.rename(trial.root / "models")


def _rename_a_file(trial: Trial) -> None:
    first = trial.media[0]
    renamed = first.rename(first.with_name(f"renamed{first.suffix}")).relative_to(trial.world).as_posix()
    trial.samples = [
        row | {"media": renamed if trial.world / row["media"] == first else row["media"]} for row in trial.samples
    ]


def _another_order(trial: Trial) -> None:
    trial.samples = [dict(reversed(row.items())) for row in reversed(trial.samples)]


def _csv(trial: Trial) -> None:
    rows = trial.samples
    keys = list(dict.fromkeys(key for row in rows for key in row))
    (trial.world / "samples.jsonl").unlink()
    with (trial.world / "samples.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, keys)
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {key: json.dumps(value) if isinstance(value, list | dict) else value for key, value in row.items()}
            )


def _folder_of_files(trial: Trial) -> tuple[object, ...]:
    (trial.world / "samples.jsonl").unlink()
    return "--views", 0


def _shard(trial: Trial) -> tuple[object, ...]:
    shard = trial.root / "shard.tar"
    write_tar(shard, [(f"{number}{path.suffix}", path.read_bytes()) for number, path in enumerate(trial.media)])
    return "--data", shard, "--views", 0


def _another_order_of_settings(trial: Trial) -> None:
    def turned(value: Any) -> Any:
        return {key: turned(value[key]) for key in reversed(value)} if isinstance(value, dict) else value

    for path in trial.weights.glob("*.json"):
        path.write_text(json.dumps(turned(json.loads(path.read_text())), indent=7))


def _other_times(trial: Trial) -> None:
    for path in [*trial.media, *trial.weights.iterdir()]:
        os.utime(path, (1e9, 1e9))


def _lost_index(trial: Trial) -> None:
    (trial.cache / "stat-index.sqlite").unlink()


HITS: list[tuple[str, Change]] = [
    ("nothing", typed()),
    ("the media folder", _move_media),
    ("the cache folder", _move_cache),
    ("the weights' folder", _move_weights),
    ("a file's name", _rename_a_file),
    ("files' times", _other_times),
    ("order of the data file", _another_order),
    ("CSV", _csv),
    ("a folder of files", _folder_of_files),
    ("a tar shard", _shard),
    ("order of the settings", _another_order_of_settings),
    ("the index", _lost_index),
    ("batch size", typed("--batch-size", 1)),
    ("block size", typed("--block-rows", 2)),
    ("one worker", typed("--workers", 1)),
    ("two workers", typed("--workers", 2)),
    ("limits", typed("--max-pixels", 90_000_000, "--max-bytes", 10**9, "--timeout", 60)),
    ("fewer layers", typed("--layers", "1,3")),
    ("one layer", typed("--layers", "last:1")),
    ("fewer views", typed("--views", 0)),
    ("a seed that draws nothing", typed("--seed", 5)),
]


@pytest.mark.parametrize("trial", Modality, indirect=True)
@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in HITS])
def test_what_does_not_decide_them_hits(trial: Trial, change: Change) -> None:
    words = change(trial) or ()
    assert trial.extract(*words) == (TRAIN + TEST, 0)


@pytest.mark.slow
@pytest.mark.parametrize("trial", [IMAGE], indirect=True)
def test_another_engine_hits(trial: Trial) -> None:
    pytest.importorskip("distributed")
    assert trial.extract("--engine", "dask", "--dask-workers", 1) == (TRAIN + TEST, 0)


PIXELS = Pixels((4, 6), "nearest", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
OTHER: dict[str, Any] = {
    "size": (4, 7), "interpolation": "box", "mean": (0.1, 0.2, 0.4), "std": (0.4, 0.5, 0.7), "reduced_jpeg": True,
    "frames": 9, "rate": 8000, "mel_bins": 9, "fit": Fit("both", (4, 6)),
}  # fmt: skip


@pytest.mark.parametrize(
    "read",
    [ImageInput(PIXELS), VideoInput(PIXELS, 4), AudioInput(16_000, 8, 64, 0.0, 1.0)],
    ids=lambda one: type(one).__name__,
)
def test_no_field_of_an_input_is_forgotten(read: Any) -> None:
    """A field that is added one day is described, or named here as one that decides nothing."""
    described = [json.dumps(read.describe())]
    for field in fields(read):
        if field.name == "pixels":
            for inner in fields(PIXELS):
                changed = replace(PIXELS, **{inner.name: OTHER[inner.name]})
                described.append(json.dumps(replace(read, pixels=changed).describe()))
        elif field.name not in ("limits", "augmentation"):
            other = OTHER[field.name] if field.name not in ("mean", "std") else 0.25
            described.append(json.dumps(replace(read, **{field.name: other}).describe()))
    assert len(set(described)) == len(described)
