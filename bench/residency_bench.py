"""What it costs that models come and go: the first token of a model that is not loaded, two models
that do not fit together, and a service that has nothing to do.

    residency_bench.py --perdure build/release/bin/perdure [--model FOLDER] [--rounds 7]

FOLDER is a model with its tokenizer; without it the built-in one is used. Times are medians, with the
least and the most; files lie in the system's memory (the first load is not counted).
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
import urllib.error
from pathlib import Path

from service import PORT, Service, stream


def text(seconds):
    ms = [1e3 * s for s in seconds]
    return f"{statistics.median(ms):.0f} ms ({min(ms):.0f} to {max(ms):.0f})"


def first_token(model, **more):
    begin = time.monotonic()
    for _ in stream({"model": model, "prompt": "Hello!", "max_tokens": 1, **more}):
        return time.monotonic() - begin


def ps(service):
    done = subprocess.run([service.perdure, "ps", "--json", "--runtime-dir", service.folder / "run"], capture_output=True,
                          check=True)
    return json.loads(done.stdout)


def await_state(service, name, state):
    while next(m for m in ps(service)["models"] if m["name"] == name)["state"] != state:
        time.sleep(0.01)


def start(perdure, folder, source, names, more=""):
    config = folder / "perdure.toml"
    config.write_text(f"[server]\nport = {PORT}\n{more}\n" +
                      "".join(f'[models.{n}]\nsource = "{source}"\nmax_context = 4096\n' for n in names))
    config.chmod(0o600)
    service = Service(perdure, config, folder)
    while True:
        try:
            first_token(names[0])
            return service
        except urllib.error.HTTPError:
            service.stop()
            raise
        except OSError:
            time.sleep(0.01)  # nothing listens yet


def resident(pid):
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def cpu_and_wakes(pid):
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK"), int(fields["voluntary_ctxt_switches"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--perdure", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--idle-s", type=float, default=30)
    a = parser.parse_args()
    source = a.model.resolve() if a.model else "nano"

    with tempfile.TemporaryDirectory() as name:
        service = start(a.perdure, Path(name), source, ["a"])
        first_token("a")
        loaded = [first_token("a") for _ in range(a.rounds)]
        unloaded = []
        for _ in range(a.rounds):
            for _ in stream({"model": "a", "prompt": "Hello!", "max_tokens": 1, "keep_alive": 0}):
                pass
            await_state(service, "a", "stopped")
            unloaded.append(first_token("a"))
        print(f"first token of a loaded model: {text(loaded)}")
        print(f"first token of an unloaded one: {text(unloaded)}")
        held = ps(service)["memory"]["held_bytes"]
        service.stop()

    # Room for one process and a half.
    with tempfile.TemporaryDirectory() as name:
        budget = int(held * 1.5)
        service = start(a.perdure, Path(name), source, ["a", "b"],
                        f"[lifecycle]\nmemory_max = {budget}\nresidency_least_s = 0")
        first_token("b")
        turns = [first_token("ab"[i % 2]) for i in range(2 * a.rounds)]
        memory = ps(service)["memory"]
        print(f"turn and turn about, two that do not fit together: {text(turns)}; "
              f"{memory['kernel_bytes'] / 2**20:.0f} of {budget / 2**20:.0f} MiB in use")
        service.stop()

    with tempfile.TemporaryDirectory() as name:
        service = start(a.perdure, Path(name), source, ["a"])
        subprocess.run([a.perdure, "stop", "a", "--runtime-dir", Path(name) / "run"], check=True, capture_output=True)
        await_state(service, "a", "stopped")
        state = ps(service)
        pids = {"supervisor": state["supervisor"]["pid"], "frontend": state["frontend"]["pid"]}
        before = {who: cpu_and_wakes(pid) for who, pid in pids.items()}
        time.sleep(a.idle_s)
        for who, pid in pids.items():
            cpu, wakes = cpu_and_wakes(pid)
            print(f"idle {who}: {resident(pid):.1f} MiB, {1e3 * (cpu - before[who][0]) / a.idle_s:.1f} ms of a processor "
                  f"and {(wakes - before[who][1]) / a.idle_s:.1f} wake-ups a second")
        service.stop()


if __name__ == "__main__":
    main()
