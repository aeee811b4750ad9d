"""What is recorded of the libraries that decode: an upgrade that may change pixels or samples is seen."""

import av
import pytest
from PIL import features

from epalm.cache.care.why import library_differences
from epalm.extract import versions
from epalm.extract.versions import library_versions


def test_the_decoders_inside_of_packages_are_recorded() -> None:
    recorded = library_versions()
    assert recorded["ffmpeg"] == av.ffmpeg_version_info
    assert recorded["libjpeg"] == features.version("jpg")
    assert recorded["av"] == av.__version__ and recorded["pillow"] == features.version("pil")
    assert {"numpy", "torch", "soxr", "libsoxr"} <= recorded.keys()
    assert all(isinstance(version, str) and version for version in recorded.values())


def test_another_build_with_the_same_number_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    before = library_versions()
    monkeypatch.setattr(av, "ffmpeg_version_info", "7.0")
    assert library_differences(before, library_versions()) == [f"ffmpeg {before['ffmpeg']} → 7.0"]
    monkeypatch.undo()
    monkeypatch.setattr(versions, "_CODECS", {})
    assert any("libjpeg" in one for one in library_differences(before, library_versions()))
