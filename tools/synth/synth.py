"""Synthetic models: every weight is a pure function of (seed, tensor name, index).

The same function as tests/engine/synth_model.cc, so that the tests can write a model that a golden
was made from. Needs numpy alone. Float arithmetic is float32 throughout, step for step as there.
"""

import json
import math
import os
import struct
from dataclasses import dataclass, field

import numpy as np

F32 = np.float32
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mistral3": "Mistral3ForConditionalGeneration",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
HEADER_DTYPE = {"bf16": "BF16", "f16": "F16", "f32": "F32"}
# Elements that are generated at once: bounds the memory that a large model takes.
BLOCK = 1 << 22


@dataclass
class Spec:
    model_type: str = "qwen3"
    dtype: str = "bf16"
    hidden: int = 64
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    feed_forward: int = 96
    vocab: int = 256
    tied: bool = True
    bits: int = 0
    group: int = 64
    overrides: dict = field(default_factory=dict)
    shards: int = 1
    seed: int = 1
    logit_std: float = 3.0
    max_context: int = 4096
    rope_theta: float = 10000.0
    eos: list = field(default_factory=lambda: [2])
    attention_bias: bool = False
    mlp_bias: bool = False
    # Of what is quantized: affine, or mxfp4 (bits: 4) but for the overrides. Where no group divides
    # the inputs, a matrix is not quantized.
    mode: str = "affine"
    # qwen3_moe's layers of experts, in all layers but dense_layers; 0: none.
    experts: int = 0
    experts_per_token: int = 2
    expert_feed_forward: int = 64
    dense_layers: list = field(default_factory=list)
    # Where experts lie: stacked (as MLX writes them) or apart (floats only).
    expert_layout: str = "stacked"
    # Members of config.json that come on top, or in place, of those written from the others.
    config: dict = field(default_factory=dict)


def mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def fnv1a(text):
    h = 0xCBF29CE484222325
    for c in text.encode():
        h = ((h ^ c) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


class Stream:
    def __init__(self, seed, name):
        with np.errstate(over="ignore"):
            self.base = mix(np.array([seed], np.uint64))[0] ^ np.uint64(fnv1a(name))

    def bits(self, begin, end):
        with np.errstate(over="ignore"):
            i = np.arange(begin + 1, end + 1, dtype=np.uint64)
            return mix(self.base + i * np.uint64(0x9E3779B97F4A7C15))

    def centered(self, begin, end):
        return (self.bits(begin, end) >> np.uint64(40)).astype(F32) * F32(2.0**-24) - F32(0.5)


def to_bytes(values, dtype):
    values = np.ascontiguousarray(values, F32)
    if dtype == "f32":
        return values.tobytes()
    if dtype == "f16":
        return values.astype(np.float16).tobytes()
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).tobytes()


def blocks(count, make):
    """make(begin, end) -> bytes, block by block."""
    for begin in range(0, count, BLOCK):
        yield make(begin, min(count, begin + BLOCK))


@dataclass
class Tensor:
    name: str
    dtype: str  # as in the header
    shape: list
    chunks: object  # () -> iterator of bytes

    def size(self):
        return math.prod(self.shape) * {"U8": 1, "BF16": 2, "F16": 2, "F32": 4, "U32": 4}[self.dtype]


def tensors(spec):
    """All tensors, in the order of the C++ twin."""
    out = []

    def vector(name, size, offset, amplitude):
        stream = Stream(spec.seed, name)
        make = lambda b, e: to_bytes(F32(offset) + stream.centered(b, e) * F32(amplitude), spec.dtype)
        out.append(Tensor(name, HEADER_DTYPE[spec.dtype], [size], lambda: blocks(size, make)))

    def words(module, shape, bits):
        """Numbers uniform in [0, 2^bits)."""
        shape = [*shape[:-1], shape[-1] * bits // 32]
        stream = Stream(spec.seed, module + ".weight")
        out.append(Tensor(module + ".weight", "U32", shape, lambda: blocks(
            math.prod(shape),
            lambda b, e: (stream.bits(b, e) >> np.uint64(32)).astype(np.uint32).tobytes())))

    def mxfp4(module, shape, deviation):
        """Elements have a standard deviation of 2.926, scales are half, once or twice a power of two:
        a root mean square of 1.323."""
        words(module, shape, 4)
        shape = [*shape[:-1], shape[-1] // 32]
        stream = Stream(spec.seed, module + ".scales")
        middle = 127 + round(math.log2(deviation / 3.87))
        out.append(Tensor(module + ".scales", "U8", shape, lambda: blocks(
            math.prod(shape), lambda b, e: (
                (stream.bits(b, e) >> np.uint64(40)) % np.uint64(3) + np.uint64(middle - 1)
            ).astype(np.uint8).tobytes())))

    def quantized(module, shape, bits, deviation):
        words(module, shape, bits)
        shape = [*shape[:-1], shape[-1] // spec.group]
        scales = Stream(spec.seed, module + ".scales")
        biases = Stream(spec.seed, module + ".biases")
        steps = float((1 << bits) - 1)
        scale, middle = F32(deviation * math.sqrt(12.0) / steps), F32(steps / 2.0)

        def scale_values(b, e):
            i = np.arange(b, e)
            sign = np.where(i % 3 == 2, F32(-1), F32(1))
            return sign * scale * (F32(1) + scales.centered(b, e) * F32(0.5))

        count, header = math.prod(shape), HEADER_DTYPE[spec.dtype]
        out.append(Tensor(module + ".scales", header, shape, lambda: blocks(
            count, lambda b, e: to_bytes(scale_values(b, e), spec.dtype))))
        out.append(Tensor(module + ".biases", header, shape, lambda: blocks(
            count, lambda b, e: to_bytes(
                scale_values(b, e) * (biases.centered(b, e) - middle), spec.dtype))))

    def matrix(module, shape, gain):
        """`shape` is [outputs, inputs], for experts with their number before."""
        inputs = shape[-1]
        deviation = gain / math.sqrt(inputs)
        bits = spec.overrides.get(module, spec.bits)
        is_mxfp4 = spec.mode == "mxfp4" and module not in spec.overrides
        if bits and inputs % (32 if is_mxfp4 else spec.group) == 0:
            if is_mxfp4:
                return mxfp4(module, shape, deviation)
            return quantized(module, shape, bits, deviation)
        amplitude = F32(deviation * math.sqrt(12.0))
        stream = Stream(spec.seed, module + ".weight")

        def floats(name, shape, at):
            out.append(Tensor(name + ".weight", HEADER_DTYPE[spec.dtype], shape,
                              lambda: blocks(math.prod(shape), lambda b, e: to_bytes(
                                  stream.centered(at + b, at + e) * amplitude, spec.dtype))))

        if len(shape) == 2 or spec.expert_layout == "stacked":
            return floats(module, shape, 0)
        for expert in range(shape[0]):
            floats(module.replace("switch_mlp.", f"experts.{expert}."), shape[1:],
                   expert * math.prod(shape[1:]))

    q_size, kv_size = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    root = "language_model." if spec.model_type == "mistral3" else ""
    matrix(root + "model.embed_tokens", [spec.vocab, spec.hidden], spec.logit_std)
    for i in range(spec.layers):
        layer = f"{root}model.layers.{i}."
        attention, mlp = layer + "self_attn.", layer + "mlp."
        vector(layer + "input_layernorm.weight", spec.hidden, 1.0, 0.5)
        matrix(attention + "q_proj", [q_size, spec.hidden], 1.5)
        matrix(attention + "k_proj", [kv_size, spec.hidden], 1.5)
        matrix(attention + "v_proj", [kv_size, spec.hidden], 1.0)
        if spec.model_type == "qwen2" or spec.attention_bias:
            vector(attention + "q_proj.bias", q_size, 0.0, 1.0)
            vector(attention + "k_proj.bias", kv_size, 0.0, 1.0)
            vector(attention + "v_proj.bias", kv_size, 0.0, 0.5)
        if spec.model_type.startswith("qwen3"):
            vector(attention + "q_norm.weight", spec.head_dim, 1.5, 0.5)
            vector(attention + "k_norm.weight", spec.head_dim, 1.5, 0.5)
        matrix(attention + "o_proj", [spec.hidden, q_size], 1.0)
        if spec.attention_bias:
            vector(attention + "o_proj.bias", spec.hidden, 0.0, 0.5)
        vector(layer + "post_attention_layernorm.weight", spec.hidden, 1.0, 0.5)
        if spec.experts and i not in spec.dense_layers:
            experts, width = mlp + "switch_mlp.", spec.expert_feed_forward
            matrix(mlp + "gate", [spec.experts, spec.hidden], 2.0)
            matrix(experts + "gate_proj", [spec.experts, width, spec.hidden], 1.5)
            matrix(experts + "up_proj", [spec.experts, width, spec.hidden], 1.0)
            matrix(experts + "down_proj", [spec.experts, spec.hidden, width], 1.0)
            continue
        matrix(mlp + "gate_proj", [spec.feed_forward, spec.hidden], 1.5)
        matrix(mlp + "up_proj", [spec.feed_forward, spec.hidden], 1.0)
        matrix(mlp + "down_proj", [spec.hidden, spec.feed_forward], 1.0)
        if spec.mlp_bias:
            vector(mlp + "gate_proj.bias", spec.feed_forward, 0.0, 1.0)
            vector(mlp + "up_proj.bias", spec.feed_forward, 0.0, 1.0)
            vector(mlp + "down_proj.bias", spec.hidden, 0.0, 0.5)
    vector(root + "model.norm.weight", spec.hidden, 1.0, 0.25)
    if not spec.tied:
        matrix(root + "lm_head", [spec.vocab, spec.hidden], spec.logit_std)
    return out


def config(spec):
    c = {
        "architectures": [ARCHITECTURES[spec.model_type]],
        "model_type": spec.model_type,
        "hidden_size": spec.hidden,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "intermediate_size": spec.feed_forward,
        "vocab_size": spec.vocab,
        "max_position_embeddings": spec.max_context,
        "eos_token_id": spec.eos[0],
        "rms_norm_eps": 1e-6,
        "rope_theta": spec.rope_theta,
        "hidden_act": "silu",
        "tie_word_embeddings": spec.tied,
        "torch_dtype": {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}[spec.dtype],
    }
    if spec.attention_bias:
        c["attention_bias"] = True
    if spec.mlp_bias:
        c["mlp_bias"] = True
    if spec.experts:
        c.update(num_experts=spec.experts, num_experts_per_tok=spec.experts_per_token,
                 moe_intermediate_size=spec.expert_feed_forward, norm_topk_prob=True,
                 decoder_sparse_step=1, mlp_only_layers=spec.dense_layers)
    c.update(spec.config)
    if spec.model_type == "mistral3":
        text = {**c, "model_type": "mistral", "architectures": ["MistralForCausalLM"]}
        c = {"architectures": c["architectures"], "model_type": "mistral3", "text_config": text,
             "vision_config": {"model_type": "pixtral"}}
    if spec.bits:
        quant = {"group_size": spec.group, "bits": spec.bits}
        if spec.mode == "mxfp4":
            quant = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
        for module, bits in spec.overrides.items():
            quant[module] = {"group_size": spec.group, "bits": bits} if bits else False
        c["quantization"] = quant
    return c


def write_safetensors(path, part):
    header, at = {"__metadata__": {"format": "mlx"}}, 0
    for tensor in part:
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape,
                               "data_offsets": [at, at + tensor.size()]}
        at += tensor.size()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)))
        f.write(text)
        for tensor in part:
            for chunk in tensor.chunks():
                f.write(chunk)


def write_model(spec, folder):
    """config.json, generation_config.json and the safetensors files."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config(spec), f, indent=2)
    with open(os.path.join(folder, "generation_config.json"), "w") as f:
        json.dump({"eos_token_id": spec.eos, "do_sample": True, "temperature": 0.7}, f, indent=2)
    all_tensors = tensors(spec)
    if spec.shards <= 1:
        write_safetensors(os.path.join(folder, "model.safetensors"), all_tensors)
        return
    weight_map = {}
    for shard in range(spec.shards):
        name = f"model-{shard + 1:05d}-of-{spec.shards:05d}.safetensors"
        part = all_tensors[shard::spec.shards]
        write_safetensors(os.path.join(folder, name), part)
        weight_map.update({t.name: name for t in part})
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": sum(t.size() for t in all_tensors)},
                   "weight_map": weight_map}, f, indent=2)


def tokens(seed, count, vocab):
    return [int(b % np.uint64(vocab)) for b in Stream(seed, "tokens").bits(0, count)]
