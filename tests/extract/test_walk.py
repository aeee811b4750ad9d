"""A medium's way from `extract` to its committed row leads through few modules."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.walks import walk
from epalm.extract.pipeline import execute
from epalm.extract.plan import plan, plan_media
from epalm.extract.request import ExtractRequest
from epalm.samples import Modality

MOST = 16  # modules, those of the cache and of the decoders included


def test_a_medium_passes_few_modules_on_its_way_to_a_row(tmp_path: Path, small_vit: Path) -> None:
    path = tmp_path / "media" / "one.png"
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)).save(path)
    request = ExtractRequest(
        Modality.IMAGE, str(path.parent), weights=str(small_vit), layers="all", workers=0, cache=str(tmp_path / "cache")
    )
    first = plan(replace(request, cache=str(tmp_path / "warm")))
    execute(first)  # whatever is imported when it is first called is there now
    (digest,) = first.digests.values()
    built = plan(request)

    def extract() -> None:
        work = plan_media(request, built.dataset, built.encoder, built.layers, built.cache)
        assert execute(work).encoded == 1

    walked = walk(extract, {path.name, str(path), digest})
    print(walked.show())
    assert {"epalm.extract.plan", "epalm.extract.stream", "epalm.cache.feature_set"} <= walked.modules.keys()
    assert len(walked.modules) <= MOST, walked.show()
    assert not walked.returns, walked.show()
