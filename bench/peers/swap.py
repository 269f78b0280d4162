"""Two models of which one fits into memory, asked in turn: Perdure beside llama-server as a router.

    swap.py --perdure build/release/bin/perdure --peer FOLDER --model FOLDER --gguf FILE [--rounds 7]

--model and --gguf: the same shapes (compare.py makes both; a tokenizer beside the first). Times are to the
first token of a short prompt, medians; files are in the system's memory. Then what a conversation costs
that goes on after the other model was in memory: a prompt of 512 tokens, and 16 new ones.
"""

import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
from llama_server import LlamaServer, options_of  # noqa: E402
from residency_bench import ps, start  # noqa: E402
from service import stream  # noqa: E402

PROMPT, NEW_TOKENS, CONTEXT = 512, 16, 4096


def ids(count):
    return [random.randrange(100, 100_000) for _ in range(count)]


def ask(model, prompt, **more):
    began = time.monotonic()
    for _ in stream({"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0, **more}):
        return (time.monotonic() - began) * 1e3


def measure(first_token, rounds):
    """(in turn, conversations in turn); first_token(model, prompt) in ms."""
    prompts = {name: ids(PROMPT) for name in "ab"}
    for name in "ab":
        first_token(name, prompts[name])
    short = [first_token("ab"[i % 2], ids(8)) for i in range(2 * rounds)]
    for name in "ab":
        first_token(name, prompts[name])
    long = []
    for i in range(2 * rounds):
        name = "ab"[i % 2]
        prompts[name] += ids(NEW_TOKENS)
        long.append(first_token(name, prompts[name]))
    return short, long


def perdure(program, model, rounds):
    with tempfile.TemporaryDirectory() as name:
        service = start(program, Path(name), model.resolve(), ["a"])
        held = ps(service)["memory"]["held_bytes"]
        service.stop()
    with tempfile.TemporaryDirectory() as name:
        service = start(program, Path(name), model.resolve(), ["a", "b"],
                        f"[lifecycle]\nmemory_max = {int(held * 1.5)}\nresidency_least_s = 0")
        try:
            return measure(lambda m, prompt: ask(m, prompt, conversation_id=m), rounds)
        finally:
            service.stop()


def llama(folder, gguf, rounds):
    with tempfile.TemporaryDirectory(dir=gguf.parent) as models:
        for name in "ab":
            os.link(gguf, Path(models) / f"{name}.gguf")
        server = LlamaServer(folder, ["--models-dir", models, "--models-max", 1, "-c", CONTEXT, "-np", 1])
        try:
            return measure(lambda m, prompt: server.complete(prompt, model=m)[0], rounds)
        finally:
            server.stop()


def text(ms):
    return f"{statistics.median(ms):,.0f} ({min(ms):,.0f} to {max(ms):,.0f})"


def main():
    parser = options_of(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    a = parser.parse_args()
    ours = perdure(a.perdure, a.model, a.rounds)
    theirs = llama(a.peer, a.gguf, a.rounds)
    print("| first token after the other model, ms | Perdure | llama-server | ratio |")
    print("|---|--:|--:|--:|")
    for name, mine, its in zip(("of a short prompt", f"of a conversation of {PROMPT} tokens"), ours, theirs):
        print(f"| {name} | {text(mine)} | {text(its)} | {statistics.median(its) / statistics.median(mine):.1f} |")


if __name__ == "__main__":
    main()
