"""What the user sees while work runs: rates and times in units that suit them, and no line too many."""

import io

import pytest
from rich.console import Console

from epalm import console
from epalm.console import print_table, progress, rate_in_words, time_in_words


@pytest.mark.parametrize(
    ("speed", "words"),
    [(1234.56, "1,234.6 media/s"), (1, "1.0 media/s"), (0.5, "30.0 media/min"), (1 / 90, "40.0 media/h")],
)
def test_a_rate_is_never_nothing(speed: float, words: str) -> None:
    assert rate_in_words(speed, "media") == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (1535, "25 min 35 s"), (7260, "2 h 1 min")],
)
def test_a_time_has_the_units_that_matter(seconds: float, words: str) -> None:
    assert time_in_words(seconds) == words


@pytest.mark.parametrize(("total", "lines"), [(0, 0), (3, 3), (1000, 10)])
def test_progress_in_a_pipe_is_ten_lines_at_most(total: int, lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("extract", total, "media") as advance:
        for unit in range(total):
            advance(note=f"unit {unit}")
    lines_shown = capsys.readouterr().err.splitlines()
    assert len(lines_shown) == lines
    if lines:
        assert lines_shown[-1].startswith(f"extract: {total}/{total} media  ") and lines_shown[-1].endswith(
            f"  0 s left  unit {total - 1}"
        )


def test_nothing_is_read_as_markup(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    print_table("is it [/b] or [this]?", ("[i]file", "answer[/b]"), [("[red].jpg", "[/x]")])
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("is it [/b] or [this]?", "[i]file", "answer[/b]", "[red].jpg", "[/x]"))
    terminal = io.StringIO()
    monkeypatch.setattr(console, "screen", Console(file=terminal, force_terminal=True, width=120))
    with progress("import [/b]", 1, "media") as advance:
        advance(note="[red]")
    assert "import [/b]" in terminal.getvalue() and "[red]" in terminal.getvalue()
