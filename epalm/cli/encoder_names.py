"""The encoders in `--help`: those of installed packages too, which are looked for only when help is asked for."""

from typing import Any

from typer.core import TyperCommand

from epalm.extract.encoders.registry import encoder_names, own_encoders

ENCODERS = ", ".join(own_encoders())


class EncoderCommand(TyperCommand):
    """A command with an option whose help has `ENCODERS` in it, to which those of installed packages are added."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print it."""
        options: list[Any] = self.params
        for option in options:
            if text := getattr(option, "help", None):
                option.help = text.replace(ENCODERS, ", ".join(encoder_names()))
        super().format_help(ctx, formatter)
