"""Write a checkpoint as a plain Hugging Face folder in bfloat16."""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

LIMIT_BYTES = 8 * 1024 * 1024  # of the whole folder: it is part of the repository


def config_json(c: dict, tokenizer: Tokenizer) -> dict:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "head_dim": c["head_dim"],
        "hidden_act": "silu",
        "hidden_size": c["hidden_size"],
        "initializer_range": 0.02,
        "intermediate_size": c["intermediate_size"],
        "max_position_embeddings": c["max_position_embeddings"],
        "max_window_layers": c["num_hidden_layers"],
        "model_type": "qwen3",
        "num_attention_heads": c["num_attention_heads"],
        "num_hidden_layers": c["num_hidden_layers"],
        "num_key_value_heads": c["num_key_value_heads"],
        "pad_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "rms_norm_eps": c["rms_norm_eps"],
        "rope_scaling": None,
        "rope_theta": c["rope_theta"],
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": c["vocab_size"],
    }


def generation_json(tokenizer: Tokenizer) -> dict:
    """Greedy by default: a model this small gains nothing from chance."""
    return {
        "do_sample": False,
        "eos_token_id": [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")],
        "pad_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "temperature": 0.0,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder written by tokenizer.py")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", choices=("average", "model"), default="average",
                        help="the running average, or the latest weights (better after a full decay)")
    a = parser.parse_args()

    state = torch.load(a.checkpoint, weights_only=True)
    tokenizer = Tokenizer.from_file(str(a.tokenizer / "tokenizer.json"))
    a.out.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.to(torch.bfloat16).contiguous() for name, t in state[a.weights].items()}
    beside = a.out / "model.safetensors.tmp"
    save_file(tensors, beside, metadata={"format": "pt"})
    beside.chmod(0o644)
    beside.replace(a.out / "model.safetensors")
    for name, content in (("config.json", config_json(state["config"], tokenizer)), ("generation_config.json", generation_json(tokenizer))):
        (a.out / name).write_text(json.dumps(content, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(a.tokenizer / name, a.out / name)
    size = sum(f.stat().st_size for f in a.out.iterdir())
    print(f"step {state['step']}, {state['tokens'] / 1e6:.1f}M tokens -> {a.out}: {size:,} bytes")
    if size > LIMIT_BYTES:
        raise SystemExit(f"larger than {LIMIT_BYTES:,} bytes")


if __name__ == "__main__":
    main()
