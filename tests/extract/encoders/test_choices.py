"""Which encoder is asked for, with which weights; and what cannot be built, refused in one message each."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from epalm.errors import UsageError
from epalm.extract.encoders.registry import EncoderChoice, build_encoder, default_kind, require_fit
from epalm.extract.inputs.preprocess import AudioInput
from epalm.extract.request import ExtractRequest
from epalm.samples import Modality
from tests.extract.encoders.families import Family
from tests.extract.encoders.folders import CLIP, WIDTH, Folders, save_all


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return save_all(tmp_path_factory.mktemp("models"))


def test_a_choice_survives_its_record() -> None:
    choice = EncoderChoice("timesformer", "playground", frames=4, seed=3, modality=Modality.VIDEO)
    assert EncoderChoice.from_record(choice.to_record() | {"torch": "9"}) == choice
    with pytest.raises(UsageError):
        EncoderChoice.from_record({"torch": "9"})


def test_what_cannot_be_built_is_one_message(folders: Folders, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    faults = [
        EncoderChoice("resnet"),
        EncoderChoice("vit", str(tmp_path / "none")),
        EncoderChoice("vit", str(tmp_path)),
        EncoderChoice("timesformer", str(tmp_path)),
        EncoderChoice("timesformer", str(folders.ast)),
        EncoderChoice("ast", str(folders.timesformer)),
        EncoderChoice("vit", "no_such_model", random_weights=True),
        EncoderChoice("vit", str(folders.clip)),
        EncoderChoice("hf-vision", str(folders.vit)),
        EncoderChoice("hf-vision", str(folders.ast)),
        EncoderChoice("hf-vision", str(folders.timesformer)),
        folders.choice("hf-vision", tokens="pooled"),
        folders.choice("vit", tokens="patches"),
        folders.choice("vit", frames=4),
        folders.choice("timesformer-space", frames=4),
        folders.choice("vit", resize="square"),
        folders.choice("vit", resize="own", reduced_jpeg=True),
        folders.choice("ast", resize="own"),
    ]
    for choice in faults:
        with pytest.raises(UsageError):
            build_encoder(choice, device="cpu")
    with pytest.raises(UsageError):
        build_encoder(folders.choice("vit"), device="cuda:99")


def _set(folders: Folders, kind: str, folder: Path, **settings: Any) -> EncoderChoice:
    """A choice whose folder has these settings of its preprocessing, and no weights."""
    choice = folders.choice(kind, random_weights=True)
    own = Path(str(choice.weights))
    folder.mkdir()
    shutil.copy(own / "config.json", folder)
    name = "preprocessor_config.json"
    (folder / name).write_text(json.dumps(json.loads((own / name).read_text()) | settings))
    return replace(choice, weights=str(folder))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("hf-vision", {"image_mean": [0.5], "image_std": [0.5]}),
        ("hf-vision", {"image_mean": None}),
        ("hf-vision", {"image_mean": "x"}),
        ("hf-vision", {"image_std": [0, 0, 0]}),
        ("hf-vision", {"resample": 9}),
        ("hf-vision", {"rescale_factor": 0}),
        ("hf-vision", {"crop_size": None}),
        ("hf-vision-frames", {"resample": None}),
        ("timesformer", {"image_mean": [0.1, 0.2]}),
        ("timesformer", {"size": "large"}),
        ("ast", {"mean": None}),
        ("ast", {"std": 0}),
        ("ast", {"sampling_rate": 0}),
        ("wav2vec2", {"sampling_rate": None}),
        ("wav2vec2", {"sampling_rate": 0}),
    ],
)
def test_settings_of_preprocessing_that_cannot_be_used_are_one_message(
    kind: str, settings: dict[str, Any], folders: Folders, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        build_encoder(_set(folders, kind, tmp_path / kind, **settings), device="cpu")
    assert caught.value.hint == "correct preprocessor_config.json beside the weights"


@pytest.mark.parametrize(
    "settings", [{"std": [0.0] * 3}, {"mean": [0.5]}, {"interpolation": "random"}, {"crop_pct": "x"}]
)
def test_so_are_those_of_timm(settings: dict[str, Any], folders: Folders, tmp_path: Path) -> None:
    shutil.copytree(folders.vit, tmp_path / "vit")
    config = json.loads((folders.vit / "config.json").read_text())
    config["pretrained_cfg"] |= settings
    (tmp_path / "vit" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UsageError) as caught:
        build_encoder(EncoderChoice("vit", str(tmp_path / "vit"), resize="own"), device="cpu")
    assert caught.value.hint == "correct config.json beside the weights"


def test_an_ast_that_is_not_normalised_gets_the_energies_themselves(folders: Folders, tmp_path: Path) -> None:
    encoder = build_encoder(_set(folders, "ast", tmp_path / "ast", do_normalize=False), device="cpu")
    assert encoder.input == AudioInput(16_000, 32, 64, 0.0, 0.5)
    energies = torch.randn(2, 64, 32)
    assert torch.equal(encoder.input.normalise(energies), energies)


@pytest.mark.parametrize("name", ["pixtral", "sam_vision_model"])
def test_a_vision_model_of_another_build_is_one_message(name: str, folders: Folders, tmp_path: Path) -> None:
    choice = _set(folders, "hf-vision", tmp_path / name)
    (tmp_path / name / "config.json").write_text(json.dumps(CLIP | {"model_type": name, "head_dim": 12}))
    with pytest.raises(UsageError, match="has no embeddings"):
        build_encoder(choice, device="cpu")


def test_a_checkpoint_that_lacks_weights_is_refused(folders: Folders, tmp_path: Path) -> None:
    """Otherwise the library draws them at random and only logs it."""
    tensors = load_file(folders.ast / "model.safetensors")
    del tensors["layernorm.weight"]
    with pytest.raises(UsageError, match="lacks 1 "):
        build_encoder(_copy(folders.choice("ast"), tmp_path / "ast", tensors), device="cpu")


def test_a_checkpoint_of_timm_that_lacks_weights_is_refused(folders: Folders, tmp_path: Path) -> None:
    """Also where it has a classifier, which timm takes as leave to fill in whatever is not there."""
    tensors = load_file(folders.vit / "model.safetensors")
    classifier = {"head.weight": torch.zeros(10, WIDTH), "head.bias": torch.zeros(10)}
    half = {name: value for name, value in tensors.items() if not name.startswith("blocks.1.")}
    prefixed = {f"backbone.{name}": value for name, value in tensors.items()}
    config = json.loads((folders.vit / "config.json").read_text())
    config |= {"num_classes": 10, "pretrained_cfg": config["pretrained_cfg"] | {"classifier": "head"}}
    for number, (stored, lacking) in enumerate(((tensors, 0), (half, 12), (prefixed, len(tensors)))):
        choice = _copy(folders.choice("vit"), tmp_path / str(number), stored | classifier)
        (tmp_path / str(number) / "config.json").write_text(json.dumps(config))
        for one in (choice, replace(choice, kind="vit-frames")):
            with pytest.raises(UsageError, match=f"lacks {lacking} ") if lacking else nullcontext():
                build_encoder(one, device="cpu")


def test_a_convnext_that_was_never_fine_tuned_has_no_norm_in_its_head(tmp_path: Path) -> None:
    options = {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1)}
    folder = Family("convnext_atto", 0, cls=False, options=options).save(tmp_path, shape={})
    tensors = load_file(folder / "model.safetensors")
    save_file({name: one for name, one in tensors.items() if "head" not in name}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_classes": 10, "pretrained_cfg": config["pretrained_cfg"] | {"classifier": "head.fc"}}
    (folder / "config.json").write_text(json.dumps(config))
    assert build_encoder(EncoderChoice("vit", str(folder)), device="cpu").width == 32


def _copy(choice: EncoderChoice, folder: Path, tensors: dict[str, torch.Tensor]) -> EncoderChoice:
    """The choice with a copy of its folder that has these tensors."""
    shutil.copytree(str(choice.weights), folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return replace(choice, weights=str(folder))


def test_a_folder_without_preprocessing_is_refused(folders: Folders, tmp_path: Path) -> None:
    for kind in ("hf-vision", "ast"):
        choice = folders.choice(kind)
        for file in Path(str(choice.weights)).iterdir():
            if file.name != "preprocessor_config.json":
                (tmp_path / file.name).write_bytes(file.read_bytes())
        with pytest.raises(UsageError, match="has no preprocessor_config"):
            build_encoder(replace(choice, weights=str(tmp_path)), device="cpu")


def test_an_encoder_fits_its_modality() -> None:
    assert [default_kind(modality) for modality in Modality] == ["vit", "timesformer", "ast"]
    assert require_fit(EncoderChoice("timesformer-space"), Modality.VIDEO).modality is Modality.VIDEO
    with pytest.raises(UsageError) as error:
        require_fit(EncoderChoice("ast"), Modality.IMAGE)
    assert error.value.hint == "use hf-vision or timesformer-space or vit"


def test_the_playgrounds_weights_are_for_the_encoders_that_it_has_some_for() -> None:
    """Others take the published ones on its data, and say so; asked for by name, there are none."""
    for kind, modality, weights in (
        (None, Modality.IMAGE, "playground"),
        ("vit-frames", Modality.VIDEO, "playground"),
        ("hf-vision", Modality.IMAGE, None),
        ("whisper", Modality.AUDIO, None),
    ):
        assert ExtractRequest(modality, encoder=kind).choice().weights == weights
        if kind and not weights:
            with pytest.raises(UsageError, match="the playground has no weights"):
                ExtractRequest(modality, encoder=kind, weights="playground").choice()


def test_masks_that_are_off_are_those_of_sounds_alone() -> None:
    assert [ExtractRequest(one, spec_augment="off").choice().augmented for one in Modality] == [True, True, False]


def test_a_folder_of_the_same_name_does_not_take_the_place_of_the_playgrounds_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "playground").mkdir()
    monkeypatch.chdir(tmp_path)
    for request in (ExtractRequest(Modality.IMAGE), ExtractRequest(Modality.IMAGE, "photos", weights="playground")):
        assert request.choice().weights == "playground"
