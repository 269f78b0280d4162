#!/usr/bin/env python3
"""Makes parity_*.bin: logits of mlx-lm, computed in float32 on the CPU, for synthetic models.

Needs mlx and mlx-lm (0.32 was used). tests/engine/parity_test.cc writes the same models (see
tools/synth/synth.py) and compares; its table of cases is the twin of CASES.

A file holds the logits as little-endian float32, [positions][vocab].
"""

import os
import pathlib
import sys
import tempfile

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from mlx_lm.utils import load_model

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "..", "tools", "synth"))
import synth  # noqa: E402

POSITIONS = 72
TOKENS_SEED = 77
CASES = {
    "qwen3_bf16_tied": dict(hidden=64, layers=3, heads=4, kv_heads=2, head_dim=32),
    "qwen3_f16_untied_sharded": dict(dtype="f16", hidden=96, heads=6, kv_heads=2, head_dim=40,
                                     tied=False, shards=3, seed=2),
    "qwen2_bf16_untied": dict(model_type="qwen2", hidden=96, heads=6, kv_heads=2, head_dim=16,
                              tied=False, seed=3),
    "qwen2_f32_tied": dict(model_type="qwen2", dtype="f32", hidden=64, layers=3, heads=4,
                           kv_heads=4, head_dim=16, seed=4),
    "qwen3_4bit_tied": dict(hidden=128, heads=4, kv_heads=1, head_dim=64, feed_forward=192,
                            bits=4, seed=5),
    "qwen3_4bit_mixed_untied": dict(
        dtype="f16", hidden=96, head_dim=32, feed_forward=160, tied=False, bits=4, group=32,
        overrides={"lm_head": 8, "model.layers.0.self_attn.v_proj": 6,
                   "model.layers.1.mlp.down_proj": 0}, seed=6),
    "qwen2_8bit_untied": dict(model_type="qwen2", hidden=128, heads=8, kv_heads=2, head_dim=16,
                              feed_forward=256, tied=False, bits=8, seed=7),
    "qwen2_3bit_tied": dict(model_type="qwen2", dtype="f32", hidden=128, head_dim=32,
                            feed_forward=128, bits=3, group=128, seed=8),
}


def widen(x):
    return x.astype(mx.float32) if mx.issubdtype(x.dtype, mx.floating) else x


def main():
    mx.set_default_device(mx.cpu)
    for name, case in CASES.items():
        spec = synth.Spec(**case)
        with tempfile.TemporaryDirectory() as folder:
            synth.write_model(spec, folder)
            model, _ = load_model(pathlib.Path(folder))
        # Without this mlx computes in the weights' own type.
        model.update(tree_map(widen, model.parameters()))
        ids = synth.tokens(TOKENS_SEED, POSITIONS, spec.vocab)
        logits = model(mx.array([ids]))
        assert logits.dtype == mx.float32, logits.dtype
        values = np.array(logits[0])
        values.astype("<f4").tofile(os.path.join(HERE, f"parity_{name}.bin"))
        print(f"{name}: {values.shape}, std {values.std():.2f}")


if __name__ == "__main__":
    main()
