#!/usr/bin/env python3
"""Makes quantize_on_load.safetensors: float matrices and what mx.quantize makes of them.

Needs mlx (0.32 was used). For each type a module `<type>` with its floats in `.weight`, and for 4
and 8 bits, in groups of 64, a module `<type>_<bits>` with `.weight`, `.scales` and `.biases`. Among
the groups are those where rounding and signs are decided: zeros, one value alone, a range below the
smallest step, all of one sign, ties. tests/engine/quantize_on_load_test.cc reads the file.
"""

import os

import mlx.core as mx
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
GROUP, GROUPS, ROWS = 64, 4, 33


def special(rng):
    base = rng.standard_normal(GROUP)
    return [
        np.zeros(GROUP),
        np.full(GROUP, 1.0),
        np.full(GROUP, -0.37),
        np.full(GROUP, 1e-9),
        1.0 + 1e-6 * base,
        1e-8 * base,
        1e-4 * np.abs(base),
        -1e-4 * np.abs(base),
        np.where(np.arange(GROUP) == 5, -3.0, 0.0),
        np.where(np.arange(GROUP) == 5, 3.0, 0.0),
        np.tile([-1.0, 1.0], GROUP // 2),
        np.linspace(-8, 7, GROUP),
        np.arange(GROUP) / 2 - 8,
        np.arange(GROUP) * 4.0 - 1,
        6000.0 * base,
        np.round(base * 4) / 4,
    ]


def main():
    mx.set_default_device(mx.cpu)
    rng = np.random.default_rng(2)
    values = rng.standard_normal((ROWS, GROUPS * GROUP)) * np.exp(rng.standard_normal((ROWS, 1)))
    for i, group in enumerate(special(rng)):
        values[i // GROUPS, i % GROUPS * GROUP:][:GROUP] = group
    out = {}
    for name, dtype in (("f32", mx.float32), ("bf16", mx.bfloat16), ("f16", mx.float16)):
        floats = mx.array(values).astype(dtype)
        out[f"{name}.weight"] = floats
        for bits in (4, 8):
            weight, scales, biases = mx.quantize(floats, GROUP, bits)
            assert scales.dtype == dtype
            out.update({f"{name}_{bits}.weight": weight, f"{name}_{bits}.scales": scales,
                        f"{name}_{bits}.biases": biases})
    mx.save_safetensors(os.path.join(HERE, "quantize_on_load.safetensors"), out)


if __name__ == "__main__":
    main()
