"""Entry point of `epalm` and `python -m epalm`: runs a command, turns faults into messages and exit codes."""

import sys
from io import TextIOWrapper

from epalm.errors import EpalmError


def main() -> None:
    """Run the command line. Exit code 0 done, 1 a fault shown as one message, 2 wrong usage, 130 Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # of what a terminal's encoding lacks, the code is shown
    from epalm.cli.app import app

    try:
        app(prog_name="epalm", standalone_mode=True)
    except EpalmError as error:
        from epalm.console import show_error

        show_error(error)
        sys.exit(1)
    except KeyboardInterrupt:  # while modules are imported; in a command, see `epalm.cli.options`
        sys.exit(130)


if __name__ == "__main__":
    main()
