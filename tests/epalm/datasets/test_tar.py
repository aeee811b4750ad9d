"""Tar headers: members lie where they say, and a damaged, cut or forged tar is one message that names the place."""

import gzip
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epalm.datasets import load_dataset
from epalm.datasets.webdataset import read_members
from epalm.errors import UsageError
from tests.shards import PLAIN, Members, special, write_tar

LONG: Members = [
    ("./x/" + "d" * 90 + "/" + "n" * 120 + ".jpg", b"long"),
    ("ü/日本.jpg", "é".encode()),
    (special("folder", tarfile.DIRTYPE), b""),
    ("empty.jpg", b""),
    ("exact.jpg", b"y" * 512),
]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_lie_where_the_standard_library_finds_them(tmp_path: Path, form: int) -> None:
    path = write_tar(tmp_path / "s.tar", [*LONG, *PLAIN], form)
    with tarfile.open(path) as tar, path.open("rb") as file:
        expected = [(member.name, member.offset_data, member.size) for member in tar if member.isreg()]
        members = [(m.name, m.offset_data, m.size) for m in read_members(file, "s") if m.isreg()]
    assert members == expected


@pytest.mark.parametrize("form", ["v7", "ustar", "oldgnu", "gnu", "pax"])
def test_what_the_tar_command_writes(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.jpg").write_bytes(b"one")
    (folder / "sub" / "a.txt").write_text("words")
    done = subprocess.run(["tar", f"--format={form}", "-cf", "s.tar", "-C", "in", "."], cwd=tmp_path, check=False)
    if done.returncode:
        pytest.skip("this tar writes no such format")
    dataset = load_dataset(str(tmp_path / "s.tar"))
    (sample,) = dataset.samples
    assert (sample.media, sample.references) == ("s.tar/sub/a.jpg", ("words",))
    assert dataset.locate(sample.media).open().read() == b"one"


def test_sizes_and_names_from_extended_headers(tmp_path: Path) -> None:
    info = tarfile.TarInfo("short.jpg")
    info.pax_headers = {"path": "real.jpg", "comment": "1 a=b\n2"}
    dataset = load_dataset(str(write_tar(tmp_path / "s.tar", [(info, b"abc"), *PLAIN])))
    assert dataset.samples[0].media == "s.tar/real.jpg"
    assert dataset.locate("s.tar/real.jpg").size == 3


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_compressed_shards_are_refused(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "s").mkdir()
    shard = tmp_path / "s" / f"s{suffix}"
    shard.write_bytes(gzip.compress(write_tar(tmp_path / "t.tar", PLAIN).read_bytes()))
    for spec in (str(shard), str(tmp_path / "s")):
        with pytest.raises(UsageError, match="or compressed") as caught:
            load_dataset(spec)
        assert "gzip -d" in str(caught.value.hint)


def test_every_truncation_is_found(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "t.tar", PLAIN).read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    shard = tmp_path / "s.tar"
    for length in range(0, end, 100):
        shard.write_bytes(whole[:length])
        with pytest.raises(UsageError, match=r"s\.tar, byte [\d,]+: .*cut off"):
            load_dataset(str(shard))
    shard.write_bytes(whole[: end + 512])
    assert len(load_dataset(str(shard)).samples) == 2


def test_a_damaged_header_is_not_the_end(tmp_path: Path) -> None:
    data = bytearray(write_tar(tmp_path / "s.tar", PLAIN).read_bytes())
    data[1024 + 3] ^= 1
    (tmp_path / "s.tar").write_bytes(data)
    with pytest.raises(UsageError, match=r"s\.tar, byte 1,024: no tar header there"):
        load_dataset(str(tmp_path / "s.tar"))


def test_shards_joined_with_cat_are_not_cut_short_in_silence(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", PLAIN)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(UsageError, match="the tar ends, the shard goes on"):
        load_dataset(str(path))


def _with_size(data: bytes, field: bytes) -> bytes:
    """The tar with that size in its first header, and the checksum that goes with it."""
    header = bytearray(data[:512])
    header[124:136] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


@pytest.mark.parametrize(
    "field",
    [
        b"77777777777\0",
        b"\x80" + b"\xff" * 11,
        b"\xff" * 12,
        b"9" * 12,
        b"-0000000001\0",
        b"0x000000007\0",
    ],
)
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_absurd_sizes(tmp_path: Path, field: bytes, kind: bytes) -> None:
    data = bytearray(write_tar(tmp_path / "s.tar", PLAIN, tarfile.USTAR_FORMAT).read_bytes())
    data[156:157] = kind
    (tmp_path / "s.tar").write_bytes(_with_size(bytes(data), field))
    with pytest.raises(UsageError, match=r"s\.tar, byte (0|512): .*(cut off|no tar header)"):
        load_dataset(str(tmp_path / "s.tar"))


@pytest.mark.parametrize("record", [b"0 path=a\n", b"11 size=-1\n", b"11 size=9e9\n"])
def test_damaged_extended_headers(tmp_path: Path, record: bytes) -> None:
    header = special("x", tarfile.XHDTYPE)
    header.size = len(record)
    body = header.tobuf(tarfile.USTAR_FORMAT) + record.ljust(512, b"\0")
    (tmp_path / "s.tar").write_bytes(body + write_tar(tmp_path / "t.tar", PLAIN).read_bytes())
    with pytest.raises(UsageError, match=r"s\.tar, byte [\d,]+: (no tar header|a size of)"):
        load_dataset(str(tmp_path / "s.tar"))


def test_long_extended_headers_are_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {"comment": "x" * (2 << 20)}
    with pytest.raises(UsageError, match="a size of 2,0"):
        load_dataset(str(write_tar(tmp_path / "s.tar", [(info, b"")])))


def test_sparse_members_are_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    with pytest.raises(UsageError, match="sparse"):
        load_dataset(str(write_tar(tmp_path / "s.tar", [(info, b"")])))
    with pytest.raises(UsageError, match="sparse"):
        load_dataset(str(write_tar(tmp_path / "s.tar", [(special("a.jpg", tarfile.GNUTYPE_SPARSE), b"")])))


def test_what_is_nowrite_tar(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(b"\xff\xd8" + b"x" * 5000)
    with pytest.raises(UsageError, match="no tar header"):
        load_dataset(str(tmp_path / "s.tar"))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "0.tar").mkdir()
    with pytest.raises(UsageError, match="is not a file"):
        load_dataset(f"{tmp_path}/d/*.tar")


@given(
    st.lists(st.tuples(st.integers(0, 6_000), st.binary(min_size=1, max_size=12)), max_size=4), st.integers(0, 12_000)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
def test_mutated_shards_are_samples_or_one_fault(tmp_path: Path, edits: list[tuple[int, bytes]], length: int) -> None:
    data = bytearray(write_tar(tmp_path / "t.tar", [*LONG, *PLAIN]).read_bytes())
    for at, piece in edits:
        data[at : at + len(piece)] = piece
        if at % 3:  # as one who forges a header would
            start = at // 512 * 512
            data[start : start + 512] = _with_size(
                bytes(data[start : start + 512]), bytes(data[start + 124 : start + 136])
            )
    shard = tmp_path / "s.tar"
    shard.write_bytes(data[:length])
    try:
        dataset = load_dataset(str(shard))
    except UsageError as error:
        assert str(shard) in error.message
        return
    for sample in dataset.samples:
        medium = dataset.locate(sample.media)
        assert medium.size is not None
        assert medium.offset + medium.size <= len(data)
        json.dumps(sample.media).encode()
