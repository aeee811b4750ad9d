"""`python -m benchmarks [PART ...]`: measure, and print the ratios."""

import argparse
import json
import tempfile
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from benchmarks.report import show

PARTS = ("training", "decoding", "extraction", "cache", "scale", "crash", "scores", "token_rows", "streaming")


def main() -> None:
    """Run the benchmarks asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=(*PARTS, []), help="[default: all]")
    parser.add_argument("--quick", action="store_true", help="try the code; the figures mean little")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    figures = {}
    with tempfile.TemporaryDirectory(prefix="epalm-bench-") as root:
        for part in arguments.parts or PARTS:
            lines = import_module(f"benchmarks.{part}").run(Path(root), quick=arguments.quick)
            figures[part] = [asdict(line) for line in lines]
            show(part, lines)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
