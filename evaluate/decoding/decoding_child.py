"""The life of a decoding process: the run once, then a chunk in and its predictions out, until its pipe closes."""

import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from epalm.children import end_with_parent
from epalm.errors import EpalmError


@dataclass(frozen=True)
class Bug:
    """A fault that nobody expects: its traceback, as text."""

    trace: str


def main(descriptor: int) -> None:
    """Serve the pipe with this descriptor."""
    end_with_parent()
    with Connection(descriptor) as pipe:
        serve(pipe)


def serve(pipe: "Connection[Any, Any]") -> None:
    """Take a job and a number of threads, answer None when ready, then a list of predictions to every chunk.

    A fault is answered with the EpalmError or the Bug, and is the end.
    """
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # nobody waits any more
        try:
            _serve(pipe)
        except EpalmError as error:
            pipe.send(error)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception:
            pipe.send(Bug(traceback.format_exc()))


def _serve(pipe: "Connection[Any, Any]") -> None:
    job, threads = pipe.recv()
    import torch

    from epalm.evaluate.decoding.spread import Decoder

    torch.set_num_threads(threads)
    decoder = Decoder(job)
    pipe.send(None)
    while True:
        pipe.send(decoder.decode(pipe.recv()))
