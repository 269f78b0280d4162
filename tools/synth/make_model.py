#!/usr/bin/env python3
"""Writes a synthetic model in Hugging Face layout: real shapes, random weights.

  make_model.py OUT --preset qwen3-0.6b --bits 4
  make_model.py OUT --type qwen2 --hidden 256 --layers 4 --heads 8 --kv-heads 2 --vocab 4096

The text it generates is noise; its speed, memory and file formats are those of a real model. The
tokenizer and chat template are copied from another model's folder. Needs numpy alone.
"""

import argparse
import os
import shutil
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import synth  # noqa: E402

PRESETS = {
    "tiny": dict(model_type="qwen3", hidden=128, layers=2, heads=4, kv_heads=2, head_dim=32,
                 feed_forward=256, vocab=2048),
    "qwen3-0.6b": dict(model_type="qwen3", hidden=1024, layers=28, heads=16, kv_heads=8,
                       head_dim=128, feed_forward=3072, vocab=151936, max_context=40960,
                       rope_theta=1e6, eos=[151645, 151643]),
    "qwen3-4b": dict(model_type="qwen3", hidden=2560, layers=36, heads=32, kv_heads=8,
                     head_dim=128, feed_forward=9728, vocab=151936, max_context=40960,
                     rope_theta=1e6, eos=[151645, 151643], shards=2),
    "qwen3-30b-a3b": dict(model_type="qwen3_moe", hidden=2048, layers=48, heads=32, kv_heads=4,
                          head_dim=128, feed_forward=6144, vocab=151936, max_context=40960,
                          rope_theta=1e6, eos=[151645, 151643], shards=4, experts=128,
                          experts_per_token=8, expert_feed_forward=768, tied=False),
    "qwen2.5-1.5b": dict(model_type="qwen2", hidden=1536, layers=28, heads=12, kv_heads=2,
                         head_dim=128, feed_forward=8960, vocab=151936, max_context=32768,
                         rope_theta=1e6, eos=[151645, 151643]),
    "llama-3.2-1b": dict(model_type="llama", hidden=2048, layers=16, heads=32, kv_heads=8,
                         head_dim=64, feed_forward=8192, vocab=128256, max_context=131072,
                         rope_theta=5e5, eos=[128001, 128008, 128009],
                         config={"rope_scaling": {
                             "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                             "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}),
    # Version 0.1, the one with a window.
    "mistral-7b": dict(model_type="mistral", hidden=4096, layers=32, heads=32, kv_heads=8,
                       head_dim=128, feed_forward=14336, vocab=32000, max_context=32768,
                       tied=False, shards=2, config={"sliding_window": 4096}),
    "devstral-small": dict(model_type="mistral", hidden=5120, layers=40, heads=32, kv_heads=8,
                           head_dim=128, feed_forward=32768, vocab=131072, max_context=131072,
                           rope_theta=1e9, tied=False, shards=10, config={"sliding_window": None}),
}
NANO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "models", "nano")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
                   "special_tokens_map.json")


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("out", help="folder to write")
    p.add_argument("--preset", choices=sorted(PRESETS), default="tiny")
    p.add_argument("--type", dest="model_type", choices=sorted(synth.ARCHITECTURES))
    for name in ("hidden", "layers", "heads", "kv-heads", "head-dim", "feed-forward", "vocab",
                 "max-context", "shards", "seed"):
        p.add_argument("--" + name, type=int)
    p.add_argument("--rope-theta", type=float)
    p.add_argument("--eos", type=int, nargs="+", help="end-of-text token ids")
    p.add_argument("--dtype", choices=["bf16", "f16", "f32"], default="bf16")
    p.add_argument("--bits", type=int, choices=[0, 2, 3, 4, 5, 6, 8], default=0,
                   help="affine quantization; 0: none")
    p.add_argument("--group", type=int, choices=[32, 64, 128], default=64)
    p.add_argument("--mxfp4", action="store_true", help="4 bits in groups of 32, MLX's mxfp4")
    p.add_argument("--untied", action="store_true", help="a head of its own")
    p.add_argument("--logit-std", type=float, default=3.0, help="spread of the logits, about")
    p.add_argument("--tokenizer", default=NANO if os.path.isdir(NANO) else None,
                   help="folder whose tokenizer files are copied (default: models/nano)")
    args = p.parse_args()

    values = dict(PRESETS[args.preset])
    for key in ("model_type", "hidden", "layers", "heads", "kv_heads", "head_dim", "feed_forward",
                "vocab", "max_context", "shards", "seed", "rope_theta", "eos"):
        if getattr(args, key) is not None:
            values[key] = getattr(args, key)
    if args.untied:
        values["tied"] = False
    if args.mxfp4:
        args.bits, values["mode"] = 4, "mxfp4"
    spec = synth.Spec(dtype=args.dtype, bits=args.bits, group=args.group, logit_std=args.logit_std,
                      **values)
    if spec.heads % spec.kv_heads or spec.head_dim % 2:
        p.error("heads must be a multiple of kv-heads, head-dim even")
    if spec.bits:
        for name in ("hidden", "feed_forward"):
            if getattr(spec, name) % spec.group:
                p.error(f"{name} {getattr(spec, name)} is no multiple of group {spec.group}")
    synth.write_model(spec, args.out)
    if args.tokenizer:
        for name in TOKENIZER_FILES:
            source = os.path.join(args.tokenizer, name)
            if os.path.exists(source):
                shutil.copyfile(source, os.path.join(args.out, name))
    total = sum(t.size() for t in synth.tensors(spec))
    print(f"{args.out}: {spec.model_type}, {total / 1e6:.1f} MB of weights")


if __name__ == "__main__":
    main()
