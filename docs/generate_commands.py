"""Write docs/commands.md from the commands' own --help, so that the reference cannot drift from the program.

`python docs/generate_commands.py --check` fails when the file is stale.
"""

import os
import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).with_name("commands.md")
COMMANDS = (
    (),
    ("demo",),
    ("extract",),
    ("train",),
    ("score",),
    ("predict",),
    ("cache",),
    ("cache", "ls"),
    ("cache", "info"),
    ("cache", "verify"),
)


def help_of(command: tuple[str, ...]) -> str:
    """What `epalm COMMAND --help` prints on a terminal of 100 columns without colours."""
    settings = {"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1", "TERM": "dumb"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EPALM_")}
    done = subprocess.run(
        [sys.executable, "-m", "epalm", *command, "--help"],
        env=kept | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def reference() -> str:
    """The whole page."""
    parts = ["# Commands", "Written by `just docs` from `--help`."]
    for command in COMMANDS:
        name = " ".join(("epalm", *command))
        parts.append(f"## `{name}`\n\n```text\n{help_of(command)}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    text = reference()
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        sys.exit("docs/commands.md is stale: run `just docs`")
