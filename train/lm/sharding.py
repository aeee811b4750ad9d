"""A frozen language model that is divided among processes: each keeps a part of every block's weights.

A block's weights are put together in all processes while it computes, and let go after it, forward and backward
(PyTorch's FSDP). Word and position embeddings and the head are whole everywhere, and so is everything that is trained.
"""

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
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
        "model.adapters lora trains inside the blocks that are divided": config.model.forms[2] == "lora",
        f"{config.lm.quantized} weights are no numbers that can be put together": config.lm.quantized != "none",
        "there is one process; see torchrun --nproc-per-node 2 -m epalm train …": processes.count == 1,
    }
    for fault, there in faults.items():
        if there:
            raise UsageError(f"--shard-lm: {fault}", hint="leave out --shard-lm, or change that")


def shard_lm(lm: AugmentedOPT, device: torch.device, processes: Processes) -> None:
    """Divide the frozen model, on `device` afterwards; the first process's weights are taken, the others' may be meta.

    On the device there is one tensor more than its share at a time.
    """
    weights = lm.state_dict() if processes.first else {}
    mesh = init_device_mesh(device.type, (processes.count,))
    lm.to("meta")
    for block in lm.model.decoder.layers:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    lm.to_empty(device=device)
    lm.tie_weights()  # what was one tensor in two places has become two
    set_model_state_dict(lm, weights, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
