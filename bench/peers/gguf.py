"""Writes models with random weights as GGUF files, version 3: the shapes count, not the values.

As a program: gguf.py SHAPE BITS FILE.
"""

import struct
import sys

import numpy as np

# Shapes as in engine_bench --shape.
SHAPES = {
    "qwen3-0.6b": dict(arch="qwen3", hidden=1024, layers=28, heads=16, kv_heads=8, head_dim=128,
                       feed_forward=3072, vocab=151936, biases=False, head_norms=True),
    "qwen2.5-1.5b": dict(arch="qwen2", hidden=1536, layers=28, heads=12, kv_heads=2, head_dim=128,
                         feed_forward=8960, vocab=151936, biases=True, head_norms=False),
}

ALIGNMENT = 32
F32, Q4_0, Q8_0, BF16 = 0, 2, 8, 30
TYPE_OF_BITS = {16: BF16, 8: Q8_0, 4: Q4_0}
BLOCK = 32
BLOCK_BYTES = {Q4_0: 2 + BLOCK // 2, Q8_0: 2 + BLOCK}


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key, value):
    """A key and its value; the type follows from Python's."""
    def typed(v):
        if isinstance(v, bool):
            return 7, struct.pack("<B", v)
        if isinstance(v, int):
            return 4, struct.pack("<I", v)
        if isinstance(v, float):
            return 6, struct.pack("<f", v)
        return 8, string(v)

    if isinstance(value, list):
        kind = 5 if isinstance(value[0], int) else 8
        items = [struct.pack("<i", v) if kind == 5 else string(v) for v in value]
        return string(key) + struct.pack("<IIQ", 9, kind, len(value)) + b"".join(items)
    kind, data = typed(value)
    return string(key) + struct.pack("<I", kind) + data


def byte_level_alphabet():
    """The 256 characters that byte-level tokenizers write bytes as."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in shown]
    return [chr(b) for b in shown] + [chr(256 + i) for i in range(len(hidden))]


def vocabulary(size):
    """A byte-level vocabulary with one merge; all other tokens are never made from text."""
    alphabet = byte_level_alphabet()
    tokens = alphabet + [alphabet[0] * 2]
    tokens += [f"token{i}" for i in range(len(tokens), size - 1)] + ["<|end|>"]
    normal, control = 1, 3
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [normal] * (size - 1) + [control],
        "tokenizer.ggml.merges": [f"{alphabet[0]} {alphabet[0]}"],
        "tokenizer.ggml.bos_token_id": size - 1,
        "tokenizer.ggml.eos_token_id": size - 1,
        "tokenizer.ggml.padding_token_id": size - 1,
        "tokenizer.ggml.add_bos_token": False,
    }


def metadata(name, s):
    arch = s["arch"]
    return {
        "general.architecture": arch,
        "general.name": name,
        f"{arch}.context_length": 40960,
        f"{arch}.embedding_length": s["hidden"],
        f"{arch}.block_count": s["layers"],
        f"{arch}.feed_forward_length": s["feed_forward"],
        f"{arch}.attention.head_count": s["heads"],
        f"{arch}.attention.head_count_kv": s["kv_heads"],
        f"{arch}.attention.key_length": s["head_dim"],
        f"{arch}.attention.value_length": s["head_dim"],
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-6,
        f"{arch}.rope.freq_base": 1000000.0,
        **vocabulary(s["vocab"]),
    }


def tensors(s, matrix_type):
    """(name, shape with the inputs last, type) of each."""
    hidden, q, kv = s["hidden"], s["heads"] * s["head_dim"], s["kv_heads"] * s["head_dim"]
    yield "token_embd.weight", (s["vocab"], hidden), matrix_type
    for i in range(s["layers"]):
        b = f"blk.{i}."
        yield b + "attn_norm.weight", (hidden,), F32
        for part, outputs in (("q", q), ("k", kv), ("v", kv)):
            yield f"{b}attn_{part}.weight", (outputs, hidden), matrix_type
            if s["biases"]:
                yield f"{b}attn_{part}.bias", (outputs,), F32
        if s["head_norms"]:
            yield b + "attn_q_norm.weight", (s["head_dim"],), F32
            yield b + "attn_k_norm.weight", (s["head_dim"],), F32
        yield b + "attn_output.weight", (hidden, q), matrix_type
        yield b + "ffn_norm.weight", (hidden,), F32
        yield b + "ffn_gate.weight", (s["feed_forward"], hidden), matrix_type
        yield b + "ffn_up.weight", (s["feed_forward"], hidden), matrix_type
        yield b + "ffn_down.weight", (hidden, s["feed_forward"]), matrix_type
    yield "output_norm.weight", (hidden,), F32


def size_of(shape, kind):
    count = int(np.prod(shape))
    if kind in BLOCK_BYTES:
        return count // BLOCK * BLOCK_BYTES[kind]
    return count * (4 if kind == F32 else 2)


def data_of(rng, shape, kind):
    """Outputs have a standard deviation near 1 where inputs have it; vectors are near 1."""
    count = int(np.prod(shape))
    if kind == F32:
        return (1.0 + 0.1 * rng.standard_normal(count, dtype=np.float32)).tobytes()
    deviation = shape[-1] ** -0.5
    if kind == BF16:
        values = deviation * rng.standard_normal(count, dtype=np.float32)
        return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    # Elements are uniform: of -8 … 7, or of -128 … 127.
    steps = 16 if kind == Q4_0 else 256
    blocks = np.empty((count // BLOCK, BLOCK_BYTES[kind]), dtype=np.uint8)
    scale = np.float16(deviation * 12.0**0.5 / steps)
    blocks[:, :2] = np.frombuffer(scale.tobytes(), dtype=np.uint8)
    blocks[:, 2:] = rng.integers(0, 256, (count // BLOCK, BLOCK_BYTES[kind] - 2), dtype=np.uint8)
    return blocks.tobytes()


def write(path, shape_name, bits):
    shape, rng = SHAPES[shape_name], np.random.default_rng(1)
    entries = metadata(shape_name, shape)
    listed = list(tensors(shape, TYPE_OF_BITS[bits]))
    header = b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(entries))
    header += b"".join(entry(key, value) for key, value in entries.items())
    offset = 0
    for name, dims, kind in listed:
        header += string(name) + struct.pack("<I", len(dims))
        header += b"".join(struct.pack("<Q", d) for d in reversed(dims))
        header += struct.pack("<IQ", kind, offset)
        offset += -(-size_of(dims, kind) // ALIGNMENT) * ALIGNMENT
    with open(path, "wb") as file:
        file.write(header + b"\0" * (-len(header) % ALIGNMENT))
        for _, dims, kind in listed:
            data = data_of(rng, dims, kind)
            file.write(data + b"\0" * (-len(data) % ALIGNMENT))


if __name__ == "__main__":
    write(sys.argv[3], sys.argv[1], int(sys.argv[2]))
