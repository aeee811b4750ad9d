"""A frozen decoder by Hub id or folder, whole or divided among processes."""

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedConfig, PreTrainedModel

from epalm import PLAYGROUND
from epalm.errors import UsageError
from epalm.playground import weights_folder
from epalm.plugins import require_package
from epalm.recipes.config import Config
from epalm.train.lm.injected_lm import InjectedLM
from epalm.train.lm.processes import Processes
from epalm.train.lm.profile import find_profile, require_known_head
from epalm.weights import Source, from_pretrained, load


def load_lm(name: str, dtype: str = "float32", quantized: str = "none", *, empty: bool = False) -> PreTrainedModel:
    """A decoder by Hub id or folder, or the playground's, frozen; `empty`: its shapes alone, on the meta device.

    Raises UsageError: it cannot be loaded, injection cannot be done in it, which is known before weights are loaded, or
    the package for `quantized` weights is not installed.
    """
    source, precision = lm_source(name), getattr(torch, dtype)
    if source.gguf and quantized != "none":
        raise UsageError(
            f"lm.quantized {quantized}: the weights in a GGUF file are dequantized when they are loaded",
            hint="leave it out; --set lm.dtype=bfloat16 halves their memory",
        )
    config = lm_config(source)
    form = None
    if source.gguf and hasattr(transformers, "GgufConfig"):  # newer versions keep the blocks where they have kernels
        form = transformers.GgufConfig(dequantize=True)
    if quantized != "none" and not empty:
        require_package("bitsandbytes", f"lm.quantized {quantized}", "quantized")
        four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": precision}
        form = BitsAndBytesConfig(load_in_8bit=quantized == "8bit", load_in_4bit=quantized == "4bit", **four)
    lm = lm_shapes(source, config)
    profile = find_profile(lm)
    if empty:
        lm = lm.to(precision)
    else:
        lm = from_pretrained(AutoModelForCausalLM, source, "language model", config, precision, form)
        require_known_head(lm, profile)
    frozen: PreTrainedModel = lm.eval().requires_grad_(False)
    return frozen


def lm_shapes(source: Source, config: PreTrainedConfig) -> PreTrainedModel:
    """The model of a configuration without weights, on the meta device. Raises UsageError: it is no decoder's."""
    try:
        with torch.device("meta"):
            lm: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except ValueError as error:
        raise UsageError(
            f"lm.name {source.name!r} is a {config.model_type}, which is no decoder", hint="take a language model"
        ) from error
    return lm


def lm_source(name: str) -> Source:
    """Where the language model of that name comes from."""
    return Source(str(weights_folder("lm")) if name == PLAYGROUND else name, option="lm.name")


def lm_config(source: Source) -> PreTrainedConfig:
    """Its configuration; of a multimodal model that of its text part. Raises UsageError when it cannot be loaded."""

    def read() -> PreTrainedConfig:
        return AutoConfig.from_pretrained(**source.location(), trust_remote_code=False).get_text_config(decoder=True)

    return load(source, "language model", read)


def lm_depth(name: str) -> int:
    """The blocks of the language model of that name, by its configuration. Raises UsageError as `lm_config`."""
    return int(lm_config(lm_source(name)).num_hidden_layers)


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


def shard_lm(lm: InjectedLM, device: torch.device, processes: Processes) -> None:
    """Divide the frozen model among the processes; the first one's weights are taken, the others' may be meta.

    Each keeps a part of every block's weights on `device`, and one tensor more at a time. A block's are put together
    while it computes, and let go after it, forward and backward (PyTorch's FSDP). Embeddings and head are whole
    everywhere, and so is everything that is trained.
    """
    # A second, for what few need.
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    plain = lm.plain
    weights = plain.state_dict() if processes.first else {}
    # Buffers that no checkpoint holds, rotary frequencies for example.
    buffers = {name: one.cpu() for name, one in plain.named_buffers() if processes.first and name not in weights}
    buffers = processes.from_first(buffers)
    mesh = init_device_mesh(device.type, (processes.count,))
    plain.to("meta")
    for block in lm.blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    plain.to_empty(device=device)
    plain.tie_weights()  # what was one tensor in two places has become two
    for name, value in buffers.items():
        plain.get_buffer(name).copy_(value)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(plain, weights, options=options)
