"""Which device to compute on."""

import torch

from epalm.errors import UsageError


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" takes a GPU where there is one. Raises UsageError."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        fault = f"device {name!r} cannot be used: {str(error).splitlines()[0]}"
        raise UsageError(fault, hint="--device cpu always works") from error
    return device


def device_of_worker(device: str, number: int | None) -> str:
    """What a worker process computes on: those of one machine (`number` 0, 1, …) take a GPU each if there are any.

    `number` None is a worker of the user's own: its GPU is the one that it sees.
    """
    gpus = torch.cuda.device_count() if number is not None and device in ("auto", "cuda") else 0
    return f"cuda:{number % gpus}" if number is not None and gpus else device
