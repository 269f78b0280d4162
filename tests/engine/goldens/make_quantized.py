#!/usr/bin/env python3
"""Makes quantized.safetensors: small matrices that mx.quantize quantized, and what they stand for.

Needs mlx (0.32 was used). For every kind of quantization a module `<kind>` with `.weight`,
`.scales` and, where it is affine, `.biases` as MLX writes them, and `<kind>.values`, float32, as
mx.dequantize reads them. Kinds: affine_<bits>_<group>, its scales in one of three types; mxfp4;
mxfp4_scales, with every scale but NaN (255). tests/engine/quantization_test.cc reads the file.
"""

import os

import mlx.core as mx
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROWS, INPUTS = 5, 256
TYPES = [mx.float32, mx.bfloat16, mx.float16]


def main():
    mx.set_default_device(mx.cpu)
    rng = np.random.default_rng(1)
    out = {}

    def matrix(rows):
        # Of various sizes, so that scales differ, and off centre, so that some are negative.
        values = rng.standard_normal((rows, INPUTS)) * np.exp(rng.standard_normal((rows, 1)))
        return values + np.repeat(rng.standard_normal((rows, INPUTS // 32)), 32, axis=1)

    for i, (bits, group) in enumerate((b, g) for b in (2, 3, 4, 5, 6, 8) for g in (32, 64, 128)):
        name = f"affine_{bits}_{group}"
        # Each number of bits and each group meets every type.
        dtype = TYPES[(i + i // 3) % 3]
        weight, scales, biases = mx.quantize(mx.array(matrix(ROWS)).astype(dtype), group, bits)
        out.update({f"{name}.weight": weight, f"{name}.scales": scales, f"{name}.biases": biases})
        out[f"{name}.values"] = mx.dequantize(
            weight, scales.astype(mx.float32), biases.astype(mx.float32), group, bits)

    weight, scales = mx.quantize(mx.array(matrix(ROWS)).astype(mx.bfloat16), mode="mxfp4")
    out.update({"mxfp4.weight": weight, "mxfp4.scales": scales})
    words = rng.integers(0, 2**32, (32, INPUTS // 8), np.uint32)
    every = np.minimum(np.arange(256), 254).astype(np.uint8).reshape(32, 8)
    out.update({"mxfp4_scales.weight": mx.array(words), "mxfp4_scales.scales": mx.array(every)})
    for name in ("mxfp4", "mxfp4_scales"):
        out[f"{name}.values"] = mx.dequantize(out[f"{name}.weight"], out[f"{name}.scales"],
                                              mode="mxfp4", dtype=mx.float32)
    assert any((np.array(v.astype(mx.float32)) < 0).any()
               for n, v in out.items() if n.endswith(".scales") and n.startswith("affine"))
    mx.save_safetensors(os.path.join(HERE, "quantized.safetensors"), out)


if __name__ == "__main__":
    main()
