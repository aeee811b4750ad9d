"""Names in `--help`: those of installed packages too, which are looked for only when help is asked for."""

from typing import Any

from typer.core import TyperCommand

from epalm.extract.encoders.registry import encoder_names, own_encoders

ENCODERS = ", ".join(own_encoders())
BENCHMARK = "A benchmark"


class NamesCommand(TyperCommand):
    """A command to whose help the encoders and benchmarks of installed packages are added where it names such."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print it."""
        from epalm.datasets.benchmarks import benchmark_names

        options: list[Any] = self.params
        for option in options:
            text = getattr(option, "help", None) or ""
            if ENCODERS in text:
                option.help = text.replace(ENCODERS, ", ".join(encoder_names()))
            elif BENCHMARK in text:
                option.help = text.replace(BENCHMARK, f"{BENCHMARK} ({', '.join(benchmark_names())})")
        super().format_help(ctx, formatter)
