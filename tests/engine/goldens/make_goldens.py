#!/usr/bin/env python3
"""Makes parity/*.bin: what mlx-lm computes in float32 on the CPU for synthetic models.

  make_goldens.py             makes all of them anew
  make_goldens.py NAME …      those whose names begin so ("qwen3", "llama2_4bit")

Needs mlx and mlx-lm (0.32 was used). The cases stand in parity_cases.json: every architecture with
every kind of weights, and some more; a new one is a row there. tests/engine/parity_test.cc reads the
same table, writes the same models (see tools/synth/synth.py) and compares. A model with experts needs
a seed for which no token has two experts so near to each other that the engine's rounding of keys and
values decides between them: where one has, the two outputs have nothing in common from there on.

A file holds, position by position, the id of the largest logit (uint8; vocabularies here are small)
and the log-probability of every id (int16, little-endian, in steps of 1/1024).
"""

import json
import os
import pathlib
import sys
import tempfile

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map
from mlx_lm.models.base import create_attention_mask
from mlx_lm.utils import load_model

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "..", "tools", "synth"))
import synth  # noqa: E402

LOGPROB_STEPS = 1024


def cases():
    """(table, {name: synth.Spec})"""
    with open(os.path.join(HERE, "parity_cases.json")) as f:
        table = json.load(f)
    rows = {f"{a}_{w}": {**architecture, **weights}
            for a, architecture in table["architectures"].items()
            for w, weights in table["weights"].items()}
    rows.update(table["more"])
    return table, {name: synth.Spec(**{**table["base"], **row}) for name, row in rows.items()}


def windows(spec):
    """The sliding window of every layer, None where there is none, as transformers reads configs."""
    c, layers = spec.config, range(spec.layers)
    window = c.get("sliding_window")
    if spec.model_type.startswith("qwen") and not c.get("use_sliding_window"):
        window = None
    first = {"mistral": 0, "mistral3": 0, "llama": spec.layers}.get(
        spec.model_type, c.get("max_window_layers", 28))
    types = c.get("layer_types") or [
        "sliding_attention" if i >= first else "full_attention" for i in layers]
    return [window if types[i] == "sliding_attention" else None for i in layers]


def widen(x):
    return x.astype(mx.float32) if mx.issubdtype(x.dtype, mx.floating) else x


def embed_in_float32(embed=nn.QuantizedEmbedding.__call__):
    """mxfp4 embeddings come out as bfloat16, which holds them exactly."""
    nn.QuantizedEmbedding.__call__ = lambda self, ids: embed(self, ids).astype(mx.float32)


def logits(model, ids, layer_windows):
    """float32 [positions][vocab]."""
    # Without this mlx computes in the weights' own type.
    model.update(tree_map(widen, model.parameters()))
    ids = mx.array([ids])
    if not any(layer_windows):
        out = model(ids)
    else:
        # mlx-lm knows windows of llama's layer_types only: its layers, each under its own mask.
        outer = getattr(model, "language_model", model)
        h = outer.model.embed_tokens(ids)
        for layer, window in zip(outer.model.layers, layer_windows, strict=True):
            h = layer(h, create_attention_mask(h, window_size=window))
        h = outer.model.norm(h)
        out = outer.lm_head(h) if "lm_head" in outer else outer.model.embed_tokens.as_linear(h)
    assert out.dtype == mx.float32, out.dtype
    return np.array(out[0])


def pack(values):
    values = values.astype(np.float64)
    top = values.max(axis=1, keepdims=True)
    logprobs = values - top - np.log(np.exp(values - top).sum(axis=1, keepdims=True))
    steps = np.rint(logprobs * LOGPROB_STEPS)
    assert values.shape[1] <= 256 and steps.min() >= -32768
    rows = np.zeros(len(values), np.dtype([("top", "u1"), ("logprobs", "<i2", values.shape[1])]))
    rows["top"], rows["logprobs"] = values.argmax(axis=1), steps
    return rows.tobytes()


def make(spec, positions, tokens_seed):
    with tempfile.TemporaryDirectory() as folder:
        synth.write_model(spec, folder)
        model, _ = load_model(pathlib.Path(folder))
        return logits(model, synth.tokens(tokens_seed, positions, spec.vocab), windows(spec))


def main():
    mx.set_default_device(mx.cpu)
    embed_in_float32()
    table, specs = cases()
    for name, spec in specs.items():
        if sys.argv[1:] and not any(name.startswith(prefix) for prefix in sys.argv[1:]):
            continue
        values = make(spec, table["positions"], table["tokens_seed"])
        with open(os.path.join(HERE, "parity", f"{name}.bin"), "wb") as f:
            f.write(pack(values))
        print(f"{name}: {values.shape}, std {values.std():.2f}", flush=True)


if __name__ == "__main__":
    main()
