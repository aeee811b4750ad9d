"""Media names resolve below the data root and nowhere else, one by one and many at a time alike."""

import errno
import tempfile
import time
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epalm.errors import MediaError
from epalm.media import MediaRoot
from epalm.samples import Dataset

NAMES = ("a", "b", "c")
PLACES = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
TARGETS = st.one_of(  # of links: relative, below the root, out of it, and out and in again
    st.sampled_from(("a", "b", "c", ".", "..", "../a", "../..", "a/b", "missing")),
    PLACES.map("ROOT/".__add__),
    st.sampled_from(("ROOT", "OUT", "OUT/a", "OUT/back", "/")),
)
STEPS = st.lists(st.tuples(PLACES, st.one_of(st.none(), st.just("file"), TARGETS)), max_size=12)
ODD = (
    ".",
    "..",
    "",
    "é" * 120,
    "n" * 255,
    "a:b",
    "a\\b",
    "\0",
    "a\nb",
    "\ud800",
    "\udc80",
    "back",
)
PARTS = st.lists(st.sampled_from((*NAMES, *NAMES, "back", *ODD)), min_size=1, max_size=4)
QUERIES = st.lists(PARTS.map("/".join), min_size=1, max_size=12)


def _resolve_slowly(root: Path, media: str) -> Path | None:
    """The rule in its plainest form: the text's faults, then every link of the whole path; None where it is refused."""
    pure = PurePosixPath(media)
    if not media or "\0" in media or "\\" in media or ":" in media.partition("/")[0]:
        return None
    if pure.is_absolute() or ".." in pure.parts:
        return None
    try:
        path = (root.resolve() / pure).resolve()
        if path.is_symlink() or _loops(path):
            return None
    except (RuntimeError, UnicodeEncodeError):  # loops, in older Pythons; text that no file name can be
        return None
    return path if path.is_relative_to(root.resolve()) else None


def _loops(path: Path) -> bool:
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _located(root: MediaRoot, media: str) -> Path | None:
    try:
        return root.locate(media)
    except MediaError:
        return None


def _make(base: Path, root: Path, place: str, what: str | None) -> None:
    """Put a folder (None), a file or a link in `place`, in the way of what is there or under it or not at all."""
    path = root / place
    try:
        if path.is_symlink() or path.is_file():
            path.unlink()
        if what is None:
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            path.rename(base / f"moved-{len(list(base.iterdir()))}")
        if what == "file":
            path.touch()
        else:
            path.symlink_to(what.replace("ROOT", str(root)).replace("OUT", str(base / "root-out")))
    except OSError:  # a file or a loop in the way
        pass


@settings(max_examples=200, deadline=None)
@given(before=STEPS, after=STEPS, queries=QUERIES)
def test_locating_many_media_refuses_and_gives_what_locating_one_does(
    before: list[tuple[str, str | None]], after: list[tuple[str, str | None]], queries: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder).resolve()
        root = base / "root"
        for made in (root, base / "root-out"):
            made.mkdir()
        (base / "root-out" / "back").symlink_to(root)
        for place, what in before:
            _make(base, root, place, what)
        many, always = MediaRoot(root), MediaRoot(root, trust=0)
        for _ in range(2):  # the second time from what is remembered
            for media in queries:
                assert _located(many, media) == _located(always, media) == _resolve_slowly(root, media), media
        for place, what in after:  # swaps files, folders and links for one another
            _make(base, root, place, what)
        many = MediaRoot(root)
        for media in queries:
            assert _located(many, media) == _located(always, media) == _resolve_slowly(root, media), media


def test_a_file_that_becomes_a_link_is_noticed_at_once(tmp_path: Path) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    medium = tmp_path / "root" / "a" / "x.png"
    medium.touch()
    root = MediaRoot(tmp_path / "root")
    assert root.locate("a/x.png") == medium.resolve()
    medium.unlink()
    medium.symlink_to("/etc/passwd")
    with pytest.raises(MediaError, match="link that leads outside"):
        root.locate("a/x.png")


def test_a_relative_root_is_that_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset("photos", Path("photos"), ())
    for name in ("one", "two"):
        (tmp_path / name / "photos").mkdir(parents=True)
        (tmp_path / name / "photos/a.png").write_bytes(b"a picture")
        monkeypatch.chdir(tmp_path / name)
        assert dataset.locate("a.png").path == tmp_path / name / "photos/a.png"


def test_folders_are_looked_at_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root" / "a").mkdir(parents=True)
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    root = MediaRoot(tmp_path / "root")
    root.locate("a/x.png")
    (tmp_path / "root" / "a").rmdir()
    (tmp_path / "root" / "a").symlink_to(tmp_path)
    now = 1.0
    with pytest.raises(MediaError, match="link that leads outside"):
        root.locate("a/x.png")


@pytest.mark.parametrize(
    "media",
    [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "http://h/x",
        "concat:a|b",
        "file:a",
        "a\\b",
        "",
        "a\0b",
        "link/x",
        "link",
        "loop",
        "loop/x",
        "\ud800",
    ],
)
def test_media_outside_the_root_are_refused(tmp_path: Path, media: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(MediaError):
        MediaRoot(root).locate(media)


@given(st.text(min_size=1, max_size=30))
def test_no_text_resolves_outside_the_root(media: str) -> None:
    root = Path("/nonexistent/root")
    try:
        path = MediaRoot(root).locate(media)
    except MediaError:
        return
    assert path.is_relative_to(root)
