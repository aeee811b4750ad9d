"""Files and programs beside the project that tests use where they are there."""

import os
import shutil
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1].parent / "shared"


def shared_case(name: str) -> Path:
    """The folder of that name with inputs that once went wrong; skips where it is absent."""
    folder = SHARED / "cases" / name
    if not folder.exists():
        pytest.skip(f"no ../shared/cases/{name} beside the project")
    return folder


def program(name: str) -> str:
    """An independent program's path. Skips where it is not installed; CI, which installs it, fails instead."""
    path = shutil.which(name)
    if path is None:
        message = f"{name} is not installed (apt-get install ffmpeg imagemagick)"
        if os.environ.get("EPALM_MEDIA_TESTS"):
            pytest.fail(message)
        pytest.skip(message)
    return path
