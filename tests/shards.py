"""Tar shards for tests, written by the standard library."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

Members = Sequence[tuple[str | tarfile.TarInfo, bytes]]
PLAIN: Members = [("a.jpg", b"picture"), ("a.txt", b"a cat\n\n on a mat \n"), ("b.jpg", b"x" * 700), ("b.txt", b"b")]


def write_tar(path: Path, members: Members, form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            if info.isreg():
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info
