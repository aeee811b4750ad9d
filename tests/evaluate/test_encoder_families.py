"""From media to answers with encoders of other families, as typed: extract, train, score, export, predict."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import epalm as package
from epalm.cache.store import Cache
from epalm.media import MediaFile
from epalm.playground.generate import generate_playground
from epalm.samples import Modality
from tests.conftest import Epalm
from tests.extract.encoders.families import FAMILIES
from tests.extract.encoders.sequences import AUDIO, VIDEO
from tests.scored_run import SHORT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "modality", "tokens", "rule"),
    [
        (FAMILIES["SigLIP"], Modality.IMAGE, None, "positions from 0 on"),
        (FAMILIES["timm DINOv3"], Modality.IMAGE, "mean", "from 5 on"),
        (FAMILIES["timm EVA-02"], Modality.IMAGE, None, ""),
        (VIDEO["V-JEPA 2"], Modality.VIDEO, None, "positions from 0 on"),
        (AUDIO["Whisper"], Modality.AUDIO, None, "zeros for padding"),
        (AUDIO["HuBERT"], Modality.AUDIO, None, "zeros for padding"),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_an_encoder_goes_all_the_way(
    family: Any,
    modality: Modality,
    tokens: str | None,
    rule: str,
    epalm: Epalm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    family.save(Path("weights"))
    generate_playground(Path("world"), modality, counts=(3, 0, 2))
    words: tuple[object, ...] = ("-m", modality, "--data", "world", "--encoder", family.kind, "--weights", "weights")
    words += ("--layers", "last:3", "--workers", 0, *(("--tokens", tokens) if tokens else ()))
    done = epalm("extract", *words)
    assert done.code == 0, done.err
    assert done.err.count("no [CLS] token") == (tokens is None and not getattr(family, "cls", False))
    (features,) = Cache(".epalm/cache").sets()
    assert rule in features.spec.encoder["token"]
    assert epalm("extract", *words, "--json").out.count('"hits": 5')

    words = ("--from-cache", "-m", modality, "--data", "world", "--runs", "runs", "--run", "a")
    done = epalm("train", *words, "--set", "model.tokens=3", *SHORT)
    assert done.code == 0, done.err
    assert "canary" in done.err and "not checked" not in done.err
    assert epalm("score", "--run", "runs/a", "--device", "cpu").code == 0
    assert epalm("export", "runs/a", "exported").code == 0
    medium = next(one for suffix in ("jpg", "mp4", "wav") for one in Path("world").rglob(f"*.{suffix}"))
    question = "what color is it?"
    done = epalm("predict", medium, question, "--run", "exported", "--device", "cpu")
    model = package.load(Path("exported"), device="cpu")
    assert done.out.strip() == model.answer(medium, question)
    reader, digest = features.open(), MediaFile(medium).digest()
    stored = reader.gather(reader.rows_of([str(digest)]))[0]
    (row,) = model._encode([medium])
    assert isinstance(row, np.ndarray)
    np.testing.assert_allclose(row, stored.astype(np.float32), atol=2e-2)
