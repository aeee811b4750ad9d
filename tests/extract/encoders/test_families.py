"""Tokens of many families against a plain forward pass, written with the calls of the library that they come from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from transformers import AutoConfig, AutoModel, Siglip2VisionConfig

from epalm.errors import UsageError
from epalm.extract.encoders.registry import Encoder, EncoderChoice, build_encoder
from epalm.extract.spec_builder import feature_spec
from epalm.samples import Modality
from tests.extract.encoders.families import DEPTH, FAMILIES, PATCHES, SIDE, WIDTH, Family, token_of

# Where the library's models keep their blocks and the last norm, by the class of the model.
_PLACES = {
    "CLIPVisionModel": ("encoder.layers", "post_layernorm"),
    "SiglipVisionModel": ("encoder.layers", "post_layernorm"),
    "Dinov2Model": ("encoder.layer", "layernorm"),
    "Dinov2WithRegistersModel": ("encoder.layer", "layernorm"),
    "DINOv3ViTModel": ("model.layer", "norm"),
    "ViTModel": ("layers", "layernorm"),
    "DeiTModel": ("layers", "layernorm"),
    "BeitModel": ("layers", "pooler.layernorm"),
    "Aimv2VisionModel": ("encoder.layers", "rms_norm"),
    "IJepaModel": ("layers", "layernorm"),
    "ViTMAEModel": ("layers", "layernorm"),
}


@dataclass(frozen=True)
class Plain:
    """The library's own model, and the outputs of its blocks for some pictures, by hooks."""

    model: Any
    norm: Callable[[torch.Tensor], torch.Tensor]
    hidden: list[torch.Tensor]  # of each block (B, N, D)
    pooled: torch.Tensor | None  # that the library gives (B, D)


@torch.inference_mode()
def plain(family: Family, folder: Path, pictures: torch.Tensor) -> Plain:
    """One forward pass of the library."""
    hidden: list[torch.Tensor] = []
    if family.kind == "vit":
        model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
        blocks = model.blocks
        norm = model.fc_norm if isinstance(model.norm, torch.nn.Identity) else model.norm
    else:
        config = AutoConfig.from_pretrained(folder)
        if config.model_type == "vit_mae":
            config.mask_ratio = 0.0
        model = AutoModel.from_pretrained(folder, config=config).eval()
        blocks, norm = (model.get_submodule(place) for place in _PLACES[type(model).__name__])
    for block in blocks:
        block.register_forward_hook(lambda _m, _i, out: hidden.append(out[0] if isinstance(out, tuple) else out))
    end = model(pictures, **({"noise": torch.arange(PATCHES).expand(3, -1)} if "MAE" in type(model).__name__ else {}))
    pooled = end if family.kind == "vit" else getattr(end, "pooler_output", None)
    return Plain(model, norm, hidden, pooled)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def folder(family: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family.save(tmp_path_factory.mktemp("family") / "weights")


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def _build(family: Family, folder: Path, tokens: str | None = None) -> Encoder:
    choice = EncoderChoice(family.kind, str(folder), modality=Modality.IMAGE, tokens=tokens)
    return build_encoder(choice, device="cpu")


def _close(tokens: torch.Tensor, expected: list[torch.Tensor]) -> None:
    assert tokens.shape == (3, len(expected), WIDTH)
    torch.testing.assert_close(tokens, torch.stack(expected, dim=1), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_cls_tokens_equal_the_librarys(family: Family, folder: Path, pictures: torch.Tensor) -> None:
    if not family.cls:
        with pytest.raises(UsageError, match=r"no \[CLS\] token"):
            _build(family, folder, "cls")
        return
    encoder, own = _build(family, folder), plain(family, folder, pictures)
    assert encoder.describe() == _build(family, folder, "cls").describe()
    assert "tokens" not in encoder.describe()
    _close(token_of(encoder, pictures), [own.norm(hidden)[:, 0] for hidden in own.hidden])


@torch.inference_mode()
def test_means_leave_special_tokens_out(family: Family, folder: Path, pictures: torch.Tensor) -> None:
    encoder, own = _build(family, folder, "mean"), plain(family, folder, pictures)
    assert encoder.describe()["tokens"] == "mean"
    expected = []
    for hidden in own.hidden:
        assert hidden.shape == (3, family.special + PATCHES, WIDTH)
        expected.append(own.norm(hidden)[:, family.special :].mean(dim=1))
    _close(token_of(encoder, pictures), expected)
    if not family.cls:
        assert _build(family, folder).describe() == encoder.describe()  # nothing asked


@torch.inference_mode()
def test_rows_of_many_tokens_are_those_of_a_plain_pass(family: Family, folder: Path, pictures: torch.Tensor) -> None:
    """`[CLS]` and the patches, rounded as they are stored; then means over cells of their 4 × 4."""
    own, layers = plain(family, folder, pictures), (0, DEPTH - 1)
    normed = torch.stack([own.norm(own.hidden[layer]) for layer in layers], dim=1).half()
    cls = normed[:, :, : int(family.cls)]
    grid = normed[:, :, family.special :].float().unflatten(2, (4, 4))  # (B, L, 4, 4, D)
    cells = grid.unflatten(3, (1, 4)).unflatten(2, (2, 2)).mean(dim=(3, 5)).flatten(2, 3)
    encoder = _build(family, folder, "all")
    everything, full = encoder.encode(pictures, layers, torch.float16), encoder.layout
    assert encoder.describe()["layout"] == {"cls": family.cls, "grid": [4, 4]}
    expected = {
        "all": torch.cat([cls, grid.flatten(2, 3).half()], dim=2),
        "pool:2x4": torch.cat([cls, cells.half()], dim=2),
        "mean": grid.mean(dim=(2, 3))[:, :, None].half(),
        **({"cls": cls} if family.cls else {}),
    }
    for rule, values in expected.items():
        encoder = _build(family, folder, rule)
        tokens = encoder.encode(pictures, layers, torch.float16)
        assert encoder.layout == full.narrowed(rule)
        torch.testing.assert_close(tokens.half(), values, atol=4e-3, rtol=2e-3)
        assert torch.equal(tokens.half(), full.pool(everything, rule))  # to the bit


@torch.inference_mode()
def test_the_last_pooled_token_is_the_librarys(family: Family, folder: Path, pictures: torch.Tensor) -> None:
    own = plain(family, folder, pictures)
    has_pooling = family.kind == "vit" or any(hasattr(own.model, name) for name in ("head", "pooler"))
    if not has_pooling or own.pooled is None:
        with pytest.raises(UsageError):
            _build(family, folder, "pooled")
        return
    tokens = token_of(_build(family, folder, "pooled"), pictures)
    assert tokens.shape == (3, DEPTH, WIDTH)
    torch.testing.assert_close(tokens[:, -1], own.pooled, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("swin_tiny_patch4_window7_224", {"embed_dim": 24, "depths": (1, 1), "num_heads": (1, 2), "img_size": SIDE}),
        ("convnext_atto", {"dims": (8, 16, 24, 32), "depths": (1, 1, 1, 1)}),
        ("tf_efficientnet_lite0", {}),
        ("convit_tiny", {"depth": DEPTH, "local_up_to_layer": 2, "img_size": SIDE, "patch_size": 8}),
    ],
)
@torch.inference_mode()
def test_other_networks_of_timm_are_one_block(
    name: str, options: dict[str, Any], tmp_path: Path, pictures: torch.Tensor
) -> None:
    """Of stages, of convolutions, or with a `[CLS]` token that comes late: the tokens of what they end in."""
    folder = Family(name, 0, cls=False, options=options).save(tmp_path, shape={})
    encoder = _build(Family(name, 0, cls=False), folder)
    model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    end = model.forward_features(pictures)
    if name == "convit_tiny":
        expected = end[:, 0]
    elif name == "convnext_atto":  # whose norm the library puts behind the mean
        expected = model.head.norm(end).mean(dim=(2, 3))
    else:
        expected = model.forward_head(end, pre_logits=True)
    assert encoder.depth == 1
    torch.testing.assert_close(token_of(encoder, pictures)[:, 0], expected, atol=1e-5, rtol=1e-5)


def test_naflex_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    """SigLIP 2 NaFlex, whose pictures keep their proportions."""
    Siglip2VisionConfig(hidden_size=WIDTH, num_hidden_layers=DEPTH).save_pretrained(tmp_path)
    for kind in ("hf-vision", "hf-vision-frames"):
        with pytest.raises(UsageError, match="own proportions") as refused:
            build_encoder(EncoderChoice(kind, str(tmp_path)), device="cpu")
        assert "one size" in str(refused.value.hint)


def test_token_rules_are_feature_sets_of_their_own(tmp_path: Path) -> None:
    family = FAMILIES["timm SigLIP"]
    folder = family.save(tmp_path)
    names = [feature_spec(_build(family, folder, tokens), (0, 1)).name for tokens in (None, "mean", "pooled")]
    assert names[0] == names[1] != names[2]


def test_gradients_reach_an_encoder_whose_tokens_are_means(tmp_path: Path, pictures: torch.Tensor) -> None:
    family = FAMILIES["SigLIP"]
    encoder: Any = _build(family, family.save(tmp_path))
    encoder.module.requires_grad_(True)
    token_of(encoder, pictures)[:, -1].square().sum().backward()
    assert all(one.grad is not None for name, one in encoder.module.named_parameters() if "encoder.layers" in name)


@pytest.mark.parametrize("name", ["timm EVA-02", "SigLIP"])
def test_lower_precision_and_frames(name: str, tmp_path: Path, pictures: torch.Tensor) -> None:
    family = FAMILIES[name]
    where, exact = str(family.save(tmp_path)), _build(family, tmp_path)
    half = build_encoder(EncoderChoice(family.kind, where, modality=Modality.IMAGE, precision="bfloat16"), device="cpu")
    tokens = token_of(exact, pictures)
    assert (token_of(half, pictures) - tokens).norm() / tokens.norm() < 0.05
    clips = build_encoder(EncoderChoice(f"{family.kind}-frames", where, frames=3, modality=Modality.VIDEO))
    torch.testing.assert_close(token_of(clips, pictures[None]), tokens.mean(dim=0)[None], atol=1e-5, rtol=1e-5)


# Sets that 0.1 and 0.2 made before there were other token rules: they are found again, whatever is added.
@pytest.mark.parametrize(
    ("kind", "modality", "fingerprint"),
    [
        ("vit", Modality.IMAGE, "225cf4037aa3a49bbcb86132de607a5a1060cbf1ecf4f8d18ef06bbb9b83855d"),
        ("vit-frames", Modality.VIDEO, "85e76a24ec2573ed66dc1cc81a84d4da2dfcef42aa3bfb1d05976d1f160af106"),
        ("timesformer", Modality.VIDEO, "5b917a6cac12e9d7cbb6bb482069a832f10df45e97324f4362d4db4cbac34a92"),
        ("timesformer-space", Modality.IMAGE, "33b743afd1af691280af38dd9265dec643bafd75c0395f904864d81ad2146f07"),
        ("ast", Modality.AUDIO, "dba70ad1e38be5e3ddd9288a6a481609c3cc368772ba2e56165c023d8f67732b"),
    ],
)
def test_fingerprints_of_cls_tokens_stay(kind: str, modality: Modality, fingerprint: str) -> None:
    encoder = build_encoder(EncoderChoice(kind, "playground", modality=modality), device="cpu")
    assert feature_spec(encoder, (0, 1, 2, 3, 4, 5)).fingerprint == fingerprint
