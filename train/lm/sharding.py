"""A frozen language model that is divided among processes: each keeps a part of every block's weights.

A block's weights are put together in all processes while it computes, and let go after it, forward and backward
(PyTorch's FSDP). Word and position embeddings and the head are whole everywhere, and so is everything that is trained.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from epalm.config import Config
from epalm.errors import UsageError
from epalm.train.lm.augmented_opt import AugmentedOPT
from epalm.train.lm.processes import Processes


def require_shardable(config: Config, processes: Processes) -> None:
    """Raise UsageError where weights are trained or quantized, or there is nobody to divide them among."""
    faults = {
        "lm.train trains every weight, and only frozen ones are divided": config.lm.train,
        "model.adapters lora trains inside the blocks that are divided": config.model.adapter_form == "lora",
        f"{config.lm.quantized} weights are no numbers that can be put together": config.lm.quantized != "none",
    }
    for fault, there in faults.items():
        if there:
            raise UsageError(f"--shard-lm: {fault}", hint="leave out --shard-lm, or change that setting")
    if processes.count == 1:
        raise UsageError(
            "--shard-lm divides the language model among processes, and there is one",
            hint="torchrun --nproc-per-node 2 -m epalm train --shard-lm …",
        )


def shard_lm(lm: AugmentedOPT, device: torch.device, processes: Processes) -> None:
    """Divide the frozen model, on `device` afterwards; the first process's weights are taken, the others' may be meta.

    On the device there is one block more than its share at a time.
    """
    mesh = init_device_mesh(device.type, (processes.count,))
    blocks = list(lm.model.decoder.layers)
    inside = {id(module) for block in blocks for module in block.modules()}
    _take_from_first([module for module in lm.modules() if id(module) not in inside], device, processes)
    for block in blocks:
        _take_from_first(block.modules(), device, processes)
        fully_shard(block, mesh=mesh, reshard_after_forward=True)


def _take_from_first(modules: Iterable[nn.Module], device: torch.device, processes: Processes) -> None:
    """Put these modules' own tensors on the device, with the first process's numbers; shared ones stay shared."""
    placed: dict[int, nn.Parameter] = {}
    for module in modules:
        for name, tensor in list(module.named_parameters(recurse=False)):
            if id(tensor) not in placed:
                values = tensor.detach().to(device) if processes.first else torch.empty_like(tensor, device=device)
                dist.broadcast(values, 0)
                placed[id(tensor)] = nn.Parameter(values, requires_grad=False)
            setattr(module, name, placed[id(tensor)])
