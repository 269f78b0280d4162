#!/usr/bin/env python3
"""Makes rope.json: angles and magnitudes of rotary embeddings as transformers computes them.

Needs the PyPI packages transformers (5.23 was used) and numpy; torch is replaced by numpy, so that
its formulas are computed in float64. Run: python make_rope.py
"""

import json
import pathlib
import types

import numpy as np
from transformers import LlamaConfig, modeling_rope_utils

HERE = pathlib.Path(__file__).parent


class Tensor(np.ndarray):
    def to(self, device=None, dtype=None):
        return self.astype(np.float64)


modeling_rope_utils.torch = types.SimpleNamespace(
    float=None, float32=None, int64=None, clamp=np.clip, where=np.where,
    arange=lambda *args, dtype=None: np.arange(*args, dtype=np.float64).view(Tensor))

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
CASES = [
    # (head_dim, rope_theta, rope_scaling)
    (128, 10000.0, {"rope_type": "linear", "factor": 3.0}),
    (128, 500000.0, {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                     "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
    (64, 500000.0, {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.5,
                    "high_freq_factor": 8.0, "original_max_position_embeddings": 2048}),
    (128, 1000000.0, {**YARN, "original_max_position_embeddings": 32768}),
    (64, 10000.0, {**YARN, "beta_fast": 8, "beta_slow": 4.5}),
    (32, 10000.0, {**YARN, "original_max_position_embeddings": 4}),
    (32, 10000.0, {**YARN, "factor": 1.0}),
    (32, 10000.0, {**YARN, "attention_factor": 1.75}),
    (32, 10000.0, {**YARN, "attention_factor": 0.5, "mscale": 2.0, "mscale_all_dim": 1.0}),
    (32, 10000.0, {**YARN, "attention_factor": None, "mscale": 2.0, "mscale_all_dim": 0.5}),
    (32, 10000.0, {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}),
    (32, 10000.0, {**YARN, "mscale": 2.0}),
    (32, 10000.0, {**YARN, "mscale_all_dim": 2.0}),
    (32, 10000.0, {**YARN, "mscale": 0.0, "mscale_all_dim": 2.0}),
    (32, 10000.0, {**YARN, "mscale": 2.0, "mscale_all_dim": 0.0}),
]


def compute(head_dim, theta, scaling):
    config = LlamaConfig(hidden_size=2 * head_dim, num_attention_heads=2, head_dim=head_dim,
                         max_position_embeddings=4096, rope_theta=theta, rope_scaling=dict(scaling))
    function = modeling_rope_utils.ROPE_INIT_FUNCTIONS[scaling["rope_type"]]
    frequencies, magnitude = function(config, None)
    return {"head_dim": head_dim, "config": {"rope_theta": theta, "rope_scaling": scaling},
            "magnitude": magnitude, "frequencies": frequencies.tolist()}


def main():
    lines = [json.dumps(compute(*case)) for case in CASES]
    (HERE / "rope.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
