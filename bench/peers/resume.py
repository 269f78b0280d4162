"""A conversation after a restart of everything: Perdure's resumption beside llama-server's slots, which
somebody has to save and to restore by hand.

    resume.py --perdure build/release/bin/perdure --peer FOLDER --model FOLDER --gguf FILE
              [--sizes 2048,8192] [--rounds 3]

--model and --gguf: the same shapes (compare.py makes both; a tokenizer beside the first). Each round computes
a prompt, ends the server, starts it again, and asks for the same prompt with 16 new tokens. Times are to
the first token, in ms, medians; files are in the system's memory, 16-bit KV on both sides.
"""

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))
from llama_server import LlamaServer, options_of  # noqa: E402
from service import Service, stream, write_config  # noqa: E402

NEW_TOKENS = 16
VOCABULARY = 100_000


def ids(count):
    return [random.randrange(100, VOCABULARY) for _ in range(count)]


def ask(prompt, timings, **more):
    began = time.monotonic()
    for _ in stream({"prompt": prompt, "max_tokens": 1, "temperature": 0, **more}, timings):
        took = time.monotonic() - began
    return took * 1e3


def perdure(program, model, size):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_config(folder, model, size + 256)
        prompt, timings = ids(size), {}
        service = Service(program, config, folder)
        service.first_token()
        computed = ask(prompt, timings, conversation_id="bench")
        service.stop()
        service = Service(program, config, folder)
        service.first_token()
        try:
            resumed = ask(prompt + ids(NEW_TOKENS), timings, conversation_id="bench")
        finally:
            service.stop()
        if timings["cache"]["snapshot"] < size - 32:
            raise RuntimeError(f"it was not resumed: {timings}")
        return {"computed": computed, "resumed": resumed}


def llama(folder, gguf, size):
    with tempfile.TemporaryDirectory() as slots:
        prompt = ids(size)
        options = ["-m", gguf, "-c", size + 256, "-np", 1, "--slot-save-path", slots]
        server = LlamaServer(folder, options)
        computed, _ = server.complete(prompt)
        saved, _ = server.post("/slots/0?action=save", {"filename": "bench"})
        server.stop()
        server = LlamaServer(folder, options)
        try:
            server.complete(ids(1))
            restored, _ = server.post("/slots/0?action=restore", {"filename": "bench"})
            continued, told = server.complete(prompt + ids(NEW_TOKENS))
        finally:
            server.stop()
        if told["timings"]["prompt_n"] > NEW_TOKENS + 32:
            raise RuntimeError(f"it was not resumed: {told['timings']}")
        return {"computed": computed, "saved": saved, "restored": restored, "continued": continued,
                "resumed": restored + continued}


def main():
    parser = options_of(__doc__)
    parser.add_argument("--sizes", default="2048,8192")
    parser.add_argument("--rounds", type=int, default=3)
    a = parser.parse_args()
    print("| tokens | Perdure: computed | resumed | llama-server: computed | slot saved | restored | continued | resumed: ratio |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    for size in map(int, a.sizes.split(",")):
        ours, theirs = [], []
        for _ in range(a.rounds):
            ours.append(perdure(a.perdure, a.model, size))
            theirs.append(llama(a.peer, a.gguf, size))

        def of(rounds, key):
            return statistics.median(r[key] for r in rounds)
        ratio = statistics.median(t["resumed"] / o["resumed"] for o, t in zip(ours, theirs))
        print(f"| {size:,} | {of(ours, 'computed'):,.0f} | {of(ours, 'resumed'):,.0f} | {of(theirs, 'computed'):,.0f} | "
              f"{of(theirs, 'saved'):,.0f} | {of(theirs, 'restored'):,.0f} | {of(theirs, 'continued'):,.0f} | "
              f"{ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
