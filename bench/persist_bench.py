"""Whether conversations that are stored slow answers down: tokens a second of clients whose turns are
stored (`durability` "sync" and "async"), over those of clients whose turns stay in memory (`store`: false),
in turn within one service each.

    persist_bench.py --perdure build/release/bin/perdure --model FOLDER [--rounds 7] [--clients 1,4] [--turns 8]

FOLDER is a model with its tokenizer. A client holds a conversation: a prompt of 200 tokens, then --turns
answers of 48 tokens, each with 24 new tokens before it. Pages of KV are written in the pauses after it, and
each other round begins while those of the one before are still being written.
"""

import argparse
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path

from service import PORT, Service, stream

PROMPT, NEW, ANSWER = 200, 24, 48
VOCABULARY = 100_000


def ids(count):
    return [random.randrange(100, VOCABULARY) for _ in range(count)]


def converse(name, turns, store):
    prompt = ids(PROMPT)
    for _ in range(turns):
        for _ in stream({"prompt": prompt, "max_tokens": ANSWER, "temperature": 0, "store": store,
                         "conversation_id": name}):
            pass
        prompt += ids(NEW)


def rate(round_name, clients, turns, store):
    threads = [threading.Thread(target=converse, args=(f"{round_name}-{i}", turns, store)) for i in range(clients)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return clients * turns * ANSWER / (time.monotonic() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--perdure", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clients", default="1,4")
    parser.add_argument("--turns", type=int, default=8)
    a = parser.parse_args()
    print("| durability | clients | in memory, tokens/s | stored, tokens/s | ratio (lowest to highest) |")
    print("|---|--:|--:|--:|--:|")
    for durability in ("sync", "async"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            config = folder / "perdure.toml"
            config.write_text(f'[server]\nport = {PORT}\n[snapshots]\ndurability = "{durability}"\n'
                              f'[models.m]\nsource = "{a.model.resolve()}"\nmax_context = 4096\n')
            config.chmod(0o600)
            service = Service(a.perdure, config, folder)
            service.first_token()
            try:
                for clients in map(int, a.clients.split(",")):
                    rate("warm", clients, 2, False)
                    memory, stored = [], []
                    for turn in range(a.rounds):
                        # Each comes first as often as the other.
                        for store in (False, True) if turn % 2 == 0 else (True, False):
                            (stored if store else memory).append(rate(f"{clients}-{turn}-{store}", clients, a.turns, store))
                    ratios = [s / m for s, m in zip(stored, memory)]
                    print(f"| {durability} | {clients} | {statistics.median(memory):.1f} | {statistics.median(stored):.1f} | "
                          f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) |", flush=True)
            finally:
                service.stop()


if __name__ == "__main__":
    main()
