"""The language model's tensors by two names: HF Llama's, and those of LLaDA-8B and LaViDa."""

import re
from collections.abc import Mapping

_LLAMA = {
    "model.transformer.wte": "model.embed_tokens",
    "model.transformer.blocks.N.attn_norm": "model.layers.N.input_layernorm",
    "model.transformer.blocks.N.q_proj": "model.layers.N.self_attn.q_proj",
    "model.transformer.blocks.N.k_proj": "model.layers.N.self_attn.k_proj",
    "model.transformer.blocks.N.v_proj": "model.layers.N.self_attn.v_proj",
    "model.transformer.blocks.N.attn_out": "model.layers.N.self_attn.o_proj",
    "model.transformer.blocks.N.ff_norm": "model.layers.N.post_attention_layernorm",
    "model.transformer.blocks.N.ff_proj": "model.layers.N.mlp.gate_proj",
    "model.transformer.blocks.N.up_proj": "model.layers.N.mlp.up_proj",
    "model.transformer.blocks.N.ff_out": "model.layers.N.mlp.down_proj",
    "model.transformer.ln_f": "model.norm",
    "model.transformer.ff_out": "lm_head",
}
"""Modules, by LLaDA's names; N is the number of a layer."""
_LLADA = {llama: llada for llada, llama in _LLAMA.items()}
_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")


def llama_name(name: str) -> str:
    """A tensor's name in HF Llama, given its name there or in LLaDA."""
    return _renamed(name, _LLAMA)


def llada_name(name: str) -> str:
    """A tensor's name in LLaDA, given its name in HF Llama."""
    return _renamed(name, _LLADA)


def _renamed(name: str, modules: Mapping[str, str]) -> str:
    """The name with its module's name replaced; as it is where the module is none of these."""
    module, _, parameter = name.rpartition(".")
    layer = _LAYER.search(module)
    found = modules.get(_LAYER.sub("N", module, count=1))
    if found is None:
        return name
    return f"{found.replace('N', layer[0] if layer else '')}.{parameter}"
