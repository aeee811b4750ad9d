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
        raise UsageError(
            f"device {name!r} cannot be used: {str(error).splitlines()[0]}", hint="--device cpu always works"
        ) from error
    return device
