"""Real files through the real architectures (random weights, so that nothing is downloaded)."""

from pathlib import Path

import numpy as np
import pytest

from epalm.cache.spec import parse_layers
from epalm.cache.store import Cache
from epalm.datasets import load_dataset
from epalm.extract.encoders.registry import EncoderChoice, build_encoder, default_kind
from epalm.samples import Modality
from tests.extractions import Machine, extract_features

MEDIA = Path(__file__).parents[3].parent / "shared" / "media"
WIDTH = 768


@pytest.mark.slow
@pytest.mark.parametrize("modality", Modality)
def test_every_file_gets_its_row(modality: Modality, tmp_path: Path) -> None:
    if not MEDIA.is_dir():
        pytest.skip(f"no {MEDIA}")
    dataset = load_dataset(str(MEDIA / modality), modality)
    encoder = build_encoder(EncoderChoice(default_kind(modality), random_weights=True))
    cache = Cache(tmp_path)
    layers = parse_layers("last:6", range(encoder.depth))
    summary = extract_features(dataset, modality, encoder, layers, cache, machine=Machine(batch_size=2))
    features = cache.find(summary.set_name)
    assert not features.ledger.entries()
    assert summary.encoded == len(list((MEDIA / modality).iterdir()))
    reader = features.open()
    assert len(reader.digests) == summary.encoded and reader.views_of() == (0,)
    rows = np.asarray(reader.gather(np.arange(summary.encoded)), np.float32)
    assert rows.shape == (summary.encoded, 6, 1, WIDTH)
    assert np.isfinite(rows).all()
    assert len(np.unique(rows.reshape(len(rows), -1), axis=0)) == len(rows)
