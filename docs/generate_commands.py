"""Write docs/commands.md from the commands themselves, so that the reference cannot drift from the program.

`python docs/generate_commands.py --check` fails when the file is stale. The page is built from the options'
names, defaults and help, not from the rendered help, which differs between versions of the terminal library.
"""

import inspect
import sys
from pathlib import Path
from typing import Any

import typer.main

from epalm.cli.app import app

TARGET = Path(__file__).with_name("commands.md")


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _parameter_row(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if parameter.param_type_name == "argument":
        names = f"`{(parameter.metavar or parameter.name).strip('[]').upper()}`"
    shown = parameter.default
    default = "required" if parameter.required else "" if shown in (None, False, [], ()) else f"`{_cell(shown)}`"
    return f"| {names} | {_cell(getattr(parameter, 'help', '') or '')} | {default} |"


def _sections(command: Any, name: str) -> list[str]:
    parts = [f"## `{name}`", inspect.cleandoc(command.help or "").replace("\b\n", "")]
    rows = [
        _parameter_row(parameter)
        for parameter in command.params
        if not {"--help", "--install-completion", "--show-completion"} & set(parameter.opts)
    ]
    if rows:
        parts.append("\n".join(["| option | what it does | default |", "| --- | --- | --- |", *rows]))
    for child, sub_command in getattr(command, "commands", {}).items():
        parts += _sections(sub_command, f"{name} {child}")
    return parts


def reference() -> str:
    """The whole page."""
    parts = ["# Commands", "Written by `./just docs` from the commands' own help."]
    return "\n\n".join(parts + _sections(typer.main.get_command(app), "epalm")) + "\n"


if __name__ == "__main__":
    text = reference()
    if "--check" not in sys.argv:
        TARGET.write_text(text, encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        sys.exit("docs/commands.md is stale: run `./just docs`")
