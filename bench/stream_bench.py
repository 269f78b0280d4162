"""What it is worth that keys and values outlive requests and workers, measured through the service.

    stream_bench.py --bin build/release/bin --model FOLDER [--sizes 512,2048,8192] [--kills 9] [--arena-mib 1024]

FOLDER is a model with its tokenizer. Two tables (the second alone with --sizes ""):

1. Time to the first token of a prompt: cold, and with 16 new tokens on the same prompt, which is in
   the cache; beside it how much of that is computing (`timings`), what computing 16 tokens takes the
   engine alone at that context (engine_bench), and the same continuation by a worker that has just
   taken over.
2. From kill -9 of the worker of a running stream to the stream's next piece, phase by phase, with so
   much of the arena in use. The phases come from the service's log, whose clock shows milliseconds.
"""

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import tempfile
import time
from datetime import datetime
from pathlib import Path

from service import Service, stream, write_config

NEW_TOKENS = 16
KILL_PROMPT = 2048  # tokens before the answer that is killed
VOCABULARY = 100_000  # ids below are in every vocabulary of these models
MIB = 1 << 20


def ids(count):
    return [random.randrange(100, VOCABULARY) for _ in range(count)]


def first_token(prompt):
    """Seconds to the first token, and the timings of the answer."""
    timings = {}
    began = time.monotonic()
    for _ in stream({"prompt": prompt, "max_tokens": 1, "temperature": 0}, timings):
        took = time.monotonic() - began
    return took, timings


def median_ms(seconds):
    return statistics.median(seconds) * 1e3


def engine_alone(folder, model, cached):
    """Seconds of a step of 16 tokens after so many cached ones."""
    done = subprocess.run([folder / "engine_bench", "--model", model, "--prompt", "32", "--cached", str(cached), "--json"],
                          capture_output=True, check=True)
    figures = json.loads(done.stdout)["figures"]
    return next(f for f in figures if f["key"] == "continuation")["seconds"]["median"]


def kill_and_wait(service):
    pid = service.model()["pid"]
    os.kill(pid, signal.SIGKILL)
    while True:
        model = service.model()
        if model["state"] == "ready" and model["pid"] != pid:
            return
        time.sleep(0.02)


def continuation_table(service, folder, model, sizes, repeat):
    print(f"| prompt | cold | + {NEW_TOKENS} tokens | ratio | of it computing | engine alone | by the next worker |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for size in sizes:
        cold, continued, taken_over, computing = [], [], [], []
        for _ in range(max(1, 4096 // size)):
            prompt = ids(size)
            seconds, timings = first_token(prompt)
            assert timings["cache"]["arena"] == 0, timings
            cold.append(seconds)
        for times, prepare in ((continued, None), (taken_over, kill_and_wait)):
            for _ in range(repeat):
                if prepare:
                    prepare(service)
                seconds, timings = first_token(prompt + ids(NEW_TOKENS))
                assert timings["cache"]["computed"] == NEW_TOKENS + size % 32, timings
                times.append(seconds)
                if times is continued:
                    computing.append(timings["prefill_ms"] / 1e3)
        alone = engine_alone(folder, model, size)
        print(f"| {size:,} | {median_ms(cold):,.0f} ms | {median_ms(continued):.1f} ms | "
              f"{statistics.median(cold) / statistics.median(continued):.0f} | {median_ms(computing):.1f} ms | "
              f"{alone * 1e3:.1f} ms | {median_ms(taken_over):.1f} ms |", flush=True)


# --- One kill ----------------------------------------------------------------------------------

COMEBACK = re.compile(r"request \w+ goes on after (\d+) tokens, (\d+) of them cached: ([\d.]+) ms to take it over, "
                      r"([\d.]+) to verify, ([\d.]+) to compute")


def moment(log, pattern):
    """Unix milliseconds of the first line that matches, and the match."""
    for line in log:
        if found := re.search(pattern, line):
            return datetime.fromisoformat(line.split(" ", 1)[0]).timestamp() * 1e3, found
    raise RuntimeError(f"the log has no line with {pattern}:\n" + "\n".join(log))


def kill_once(service, prompt, seed):
    """Milliseconds of each phase, in order, how many tokens were cached and computed, and how many
    milliseconds the same worker takes for as many again."""
    log_file = service.folder / "log"
    pid = service.model()["pid"]
    before = log_file.stat().st_size
    at_piece = 33 + random.randrange(32)
    killed = last = 0.0
    silence, came = 0.0, 0.0
    for piece, _ in enumerate(stream({"prompt": prompt, "max_tokens": 160, "temperature": 1, "seed": seed})):
        now = time.time() * 1e3
        # What the dead worker had sent comes at once; the next token after the longest silence.
        if killed and now - last > silence:
            silence, came = now - last, now
        last = now
        if piece == at_piece:
            os.kill(pid, signal.SIGKILL)
            killed = time.time() * 1e3
    log = log_file.read_bytes()[before:].decode().splitlines()
    reaped, _ = moment(log, "was killed by SIGKILL from outside")
    spawned, _ = moment(log, r"worker m started \(process")
    loaded, load = moment(log, r"loaded m .* in (\d+) ms")
    attached, _ = moment(log, "the KV cache of the worker before holds")
    computed, comeback = moment(log, COMEBACK)
    tokens, cached = int(comeback[1]), int(comeback[2])
    take_over, verify, compute = (float(comeback[i]) for i in (3, 4, 5))
    phases = {
        "the process ends, the supervisor reaps it": reaped - killed,
        "fork and exec": spawned - reaped,
        "the program begins": loaded - int(load[1]) - spawned,
        "weights and tokenizer are mapped": int(load[1]),
        "the arena is attached": attached - loaded,
        "the frontend connects and hands over": computed - take_over - verify - compute - attached,
        "the stream is taken over": take_over,
        "its pages are verified": verify,
        "what was not sealed is computed": compute,
        "the token reaches the client": came - computed,
        "**in all**": came - killed,
    }
    _, again = first_token(prompt + ids(tokens - cached))
    return phases, cached, tokens - cached, again["prefill_ms"]


def kill_table(service, kills, arena_mib):
    while True:
        prompt = ids(KILL_PROMPT)
        first_token(prompt)
        used = service.model()["arena"]["used_bytes"]
        if used >= arena_mib * MIB:
            break
    results = [kill_once(service, prompt, seed) for seed in range(kills)]
    print(f"\n{used / MIB:.0f} MiB of the arena in use; {kills} kills; the stream had "
          f"{statistics.median(r[1] for r in results):.0f} cached tokens and "
          f"{statistics.median(r[2] for r in results):.0f} others\n")
    print("| from kill -9 to the next token | median | longest |\n|---|--:|--:|")
    for phase in results[0][0]:
        times = [r[0][phase] for r in results]
        print(f"| {phase} | {statistics.median(times):.1f} ms | {max(times):.1f} ms |")
    print(f"\nA worker that is not new computes as many in {statistics.median(r[3] for r in results):.1f} ms.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--sizes", default="512,2048,8192")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--kills", type=int, default=9)
    parser.add_argument("--arena-mib", type=int, default=1024)
    a = parser.parse_args()
    sizes = [int(size) for size in a.sizes.split(",") if size]
    random.seed(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        service = Service(a.bin / "perdure", write_config(folder, a.model, 16384), folder)
        try:
            service.first_token()
            if sizes:
                continuation_table(service, a.bin, a.model, sizes, a.repeat)
            kill_table(service, a.kills, a.arena_mib)
        finally:
            service.stop()


if __name__ == "__main__":
    main()
