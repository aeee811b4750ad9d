"""What other packages add, where they are damaged."""

from pathlib import Path

import pytest

from epalm.errors import UsageError
from epalm.plugins import installed, load_plugin, plugins


def test_a_package_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_metric.py").write_text("raise ImportError('no numbers here')\n")
    info = tmp_path / "epalm_broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: epalm-broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[epalm.broken]\nodd = broken_metric:Odd\n")
    monkeypatch.syspath_prepend(tmp_path)
    installed.cache_clear()
    assert [*plugins("epalm.broken")] == ["odd"]
    with pytest.raises(UsageError, match=r"package epalm-broken .* cannot be loaded: .*no numbers") as caught:
        load_plugin("epalm.broken", "odd", object)
    assert caught.value.hint == "repair or uninstall epalm-broken"
    installed.cache_clear()
