#!/usr/bin/env python3
"""Makes nano.json: the greedy answers of mlx-lm to a few chats with the built-in model.

Needs mlx, mlx-lm (0.32 was used) and transformers. Run it whenever models/nano changes:

  tests/engine/goldens/make_nano.py

tests/engine/nano_test.cc gives the same prompts, as token ids, to the engine. mlx-lm loads the
folder as it is and then computes in float32, as the engine does; how many answers are the same in
the folder's own type is printed. An answer is cut before a token that is nearly a tie, which
rounding alone may decide.
"""

import json
import os
import pathlib

import mlx.core as mx
from mlx_lm import load
from mlx_lm.models.cache import make_prompt_cache

from make_goldens import widen
from mlx.utils import tree_map

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = pathlib.Path(HERE, "..", "..", "..", "models", "nano").resolve()
TOKENS_MAX = 48
MARGIN_MIN = 0.02
CHATS = [
    [{"role": "user", "content": "Hello!"}],
    [{"role": "user", "content": "What is 2 + 2?"}],
    [{"role": "user", "content": "What is 17 + 25?"}],
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "user", "content": "Who are you?"}],
    [{"role": "user", "content": "Tell me a short story."}],
    [{"role": "user", "content": "Count from 1 to 10."}],
    [{"role": "user", "content": "Repeat after me: blue house"}],
    [{"role": "user", "content": "Sort these words: pear, apple, fig"}],
    [{"role": "user", "content": "Write the word cat in capital letters."}],
    [{"role": "user", "content": "My name is Ada."},
     {"role": "assistant", "content": "Nice to meet you, Ada."},
     {"role": "user", "content": "What is my name?"}],
    [{"role": "system", "content": "You answer briefly."},
     {"role": "user", "content": "What color is the sky?"}],
    [{"role": "user", "content": "Give me a JSON object with the keys a and b."}],
    [{"role": "user", "content": "Thank you, goodbye!"}],
    [{"role": "user", "content": "Größe, naïve, 東京, 🙂"}],
    [{"role": "user", "content": "Explain what a cache is."}],
]


def fnv1a(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def greedy(model, prompt, ends, margin_min):
    """(answer with its end token, how it ended)"""
    cache, answer, fed = make_prompt_cache(model), [], prompt
    while len(answer) < TOKENS_MAX:
        last = model(mx.array([fed]), cache=cache)[0, -1].astype(mx.float32)
        best = mx.argmax(last).item()
        second = mx.max(mx.where(mx.arange(last.size) == best, -mx.inf, last)).item()
        if last[best].item() - second < margin_min:
            return answer, "tie"
        answer.append(best)
        if best in ends:
            return answer, "end"
        fed = [best]
    return answer, "length"


def main():
    mx.set_default_device(mx.cpu)
    model, tokenizer = load(str(MODEL))
    prompts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True)
               for chat in CHATS]
    ends = set(tokenizer.eos_token_ids)
    own_type = [greedy(model, prompt, ends, 0.0)[0] for prompt in prompts]
    model.update(tree_map(widen, model.parameters()))
    rows, equal = [], 0
    for chat, prompt, own in zip(CHATS, prompts, own_type):
        answer, end = greedy(model, prompt, ends, MARGIN_MIN)
        equal += own[:len(answer)] == answer
        print(f"{chat[-1]['content']!r}: {tokenizer.decode(answer)!r} ({end})")
        rows.append({"prompt": list(prompt), "answer": answer})
    data = (MODEL / "model.safetensors").read_bytes()
    with open(os.path.join(HERE, "nano.json"), "w") as f:
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        f.write(f'{{"weights_bytes":{len(data)},"weights_fnv1a":{fnv1a(data)},"answers":[\n'
                f"{lines}\n]}}\n")
    print(f"{equal} of {len(CHATS)} answers are the same in the model's own type")


if __name__ == "__main__":
    main()
