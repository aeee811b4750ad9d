"""A Java that does not work is one error, whatever it does instead."""

from pathlib import Path

import pytest

from epalm.errors import MetricError
from epalm.evaluate.metrics.java import find_java, run_java


def _java(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> Path:
    """A `java` on PATH, without a release file above it."""
    path = folder / "bin" / "java"
    path.parent.mkdir()
    path.write_text(program)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(path.parent))
    return path


SAYS = '#!/bin/sh\n[ "$1" = -version ] && { echo \'openjdk version "1.8.0_392"\' >&2; exit 0; }\n'


@pytest.mark.parametrize(
    ("program", "fault"),
    [
        ("#!/no/such/shell\n", "cannot be started"),
        ("#!/bin/sh\nexit 1\n", "does not say its version"),
        ("#!/bin/sh\necho nonsense\n", "does not say its version"),
    ],
)
def test_a_java_that_does_not_start(program: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _java(tmp_path, monkeypatch, program)
    with pytest.raises(MetricError, match=fault) as caught:
        find_java()
    assert str(path) in caught.value.message and caught.value.hint == "java -version"


@pytest.mark.parametrize(("rest", "last"), [("exit 3", "it printed nothing"), ("echo a >&2\necho b >&2\nexit 3", "b")])
def test_a_program_that_fails_in_java_is_named_with_its_last_line(
    rest: str, last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _java(tmp_path, monkeypatch, SAYS + rest)
    assert find_java().major == 8
    with pytest.raises(MetricError) as caught:
        run_java("the tokenizer", ["-jar", "x"])
    assert caught.value.message == f"the tokenizer failed in Java 1.8.0_392: {last}"


def test_a_java_that_is_gone_after_it_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _java(tmp_path, monkeypatch, SAYS)
    find_java()
    path.write_text("#!/no/such/shell\n")
    with pytest.raises(MetricError, match="the tokenizer cannot run with Java"):
        run_java("the tokenizer", [])
