"""A command's options are the fields of its requests, each explained where the field stands."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from epalm.cli.options import takes_requests
from epalm.request_fields import option
from epalm.samples import Modality


@dataclass(frozen=True)
class Inner:
    """Part of a request."""

    depth: int | None = option("How deep.", None, minimum=1, maximum=9)
    sure: bool | None = option("Whether it is sure.", None)


@dataclass(frozen=True)
class Request:
    """All kinds of fields."""

    modality: Modality | None = option("Which.", None, short="-m")
    inner: Inner = field(default_factory=Inner)
    quick: bool = option("In a hurry.", False)
    size: str = option("How many.", "auto", metavar="N|auto", name="batch")
    cache: str = ".epalm/cache"
    data: str | None = None


@pytest.fixture
def app() -> tuple[typer.Typer, list[Request]]:
    seen: list[Request] = []
    app = typer.Typer()

    @app.command()
    @takes_requests
    def command(word: Annotated[str, typer.Argument()], *, request: Request, as_json: bool = False) -> None:
        """What it does."""
        assert (word, as_json) == ("hello", True)
        seen.append(request)

    return app, seen


def test_options_fill_the_request(app: tuple[typer.Typer, list[Request]]) -> None:
    words = ["hello", "--json", "-m", "video", "--depth", "3", "--no-sure", "--quick", "--batch", "7", "--data", "x"]
    assert CliRunner().invoke(app[0], words).exit_code == 0
    assert CliRunner().invoke(app[0], ["hello", "--json"], env={"EPALM_CACHE": "elsewhere"}).exit_code == 0
    given = Request(Modality.VIDEO, Inner(3, False), quick=True, size="7", data="x")
    assert app[1] == [given, Request(cache="elsewhere")]


def test_wrong_values_and_help(app: tuple[typer.Typer, list[Request]], tmp_path: Path) -> None:
    for words in (["--depth", "0"], ["--depth", "10"], ["--no-quick"], ["--modality", "smell"]):
        assert CliRunner().invoke(app[0], ["hello", "--json", *words]).exit_code == 2
    shown = CliRunner().invoke(app[0], ["--help"], env={"COLUMNS": "160"}).output
    for part in (
        "What it does.",
        "How deep.",
        "--no-sure",
        "N|auto",
        "-m",
        "Feature cache",
        "In a hurry.",
    ):
        assert part in shown
    assert not app[1]
