"""A tiny random Llama in a GGUF file, written by the package `gguf` as llama.cpp writes it: permuted and quantized."""

from pathlib import Path

import numpy as np
import torch

BLOCKS, WIDTH, HEADS, KEY_HEADS, INNER = 2, 64, 4, 2, 96
_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers": "blk",
}


def save_tiny_gguf(path: Path, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Write it; matrices are Q8_0. The tensors that a loader should make of it, by their names in transformers."""
    import gguf
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    control = ["<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=control, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["Question: what colour is it? Answer: red"] * 9, trainer)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merges = tokenizer.model.__getstate__()

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS, num_key_value_heads=KEY_HEADS, max_position_embeddings=128,
        initializer_range=0.2, tie_word_embeddings=True,
    )  # fmt: skip
    state: dict[str, torch.Tensor] = LlamaForCausalLM(config).state_dict()
    del state["lm_head.weight"]  # tied

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(BLOCKS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([token for token, _ in vocabulary])
    types = [gguf.TokenType.CONTROL if token in control else gguf.TokenType.NORMAL for token, _ in vocabulary]
    writer.add_token_types(types)
    writer.add_token_merges(_merges(merges))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, tensor in state.items():
        values = tensor.numpy()
        written = name
        for ours, theirs in _NAMES.items():
            written = written.replace(ours, theirs)
        if written.endswith(("attn_q.weight", "attn_k.weight")):
            values = _interleaved(values, HEADS if "attn_q" in written else KEY_HEADS)
        if values.ndim == 1:
            writer.add_tensor(written, values)
            continue
        kind = gguf.GGMLQuantizationType.Q8_0
        blocks = gguf.quantize(np.ascontiguousarray(values), kind)
        writer.add_tensor(written, blocks, raw_dtype=kind)
        # Rows are quantized one by one, whatever their order.
        state[name] = torch.from_numpy(gguf.dequantize(gguf.quantize(tensor.numpy(), kind), kind))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return state


def _merges(state: object) -> list[str]:
    import json

    merges: list[object] = json.loads(state if isinstance(state, bytes | str) else "{}")["merges"]
    return [" ".join(map(str, pair)) if isinstance(pair, list | tuple) else str(pair) for pair in merges]


def _interleaved(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as llama.cpp rotates them: pairs side by side, not half a head apart."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
