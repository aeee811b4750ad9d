"""What needs a package that epalm does not bring: 8- and 4-bit weights (bitsandbytes) and LoRA (peft).

Imported when asked for, and only then; an absent package is one message.
"""

import importlib
import importlib.util
from typing import Any

import torch
from torch import nn

from epalm.errors import UsageError


def quantization(form: str, dtype: torch.dtype) -> Any:
    """transformers' configuration for loading weights in "8bit" or "4bit" (NF4, products in `dtype`); None: "none".

    Raises:
        UsageError: the packages are not installed.
    """
    if form == "none":
        return None
    _require("bitsandbytes", f"lm.quantized {form}", "quantized")
    from transformers import BitsAndBytesConfig

    if form == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def add_lora(lm: nn.Module, *, rank: int, alpha: int) -> None:
    """Put low-rank matrices beside the query and value projections of every block, float32, zero to begin with.

    LoRA (Hu et al., 2021), section 4.2: these two projections; scaled by alpha / rank. What a model got before stays.

    Raises:
        UsageError: peft is not installed.
    """
    _require("peft", "model.adapters lora", "lora")
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["q_proj", "v_proj"], lora_dropout=0.0)
    inject_adapter_in_model(config, lm)


def _require(package: str, setting: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UsageError(f"{setting} needs {package}, which is not installed", hint=f"pip install 'epalm[{extra}]'")
