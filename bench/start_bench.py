"""How long a service takes from its start to a first token, and what its worker's memory is.

    start_bench.py --perdure build/release/bin/perdure --model FOLDER [--starts 5] [--prompt-words 2000]

FOLDER is a model with its tokenizer. The first start prepares the weights; the others find them
prepared and in the page cache. Every time is from the start of `perdure serve`, so it holds the
supervisor's and the frontend's start too. Memory is read while a long prompt's answer is generated:
what is resident in the worker less its weights and the keys and values in use.
"""

import argparse
import statistics
import tempfile
import threading
from pathlib import Path

from service import Service, stream, write_config


def resident(pid):
    fields = dict(line.split(":") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--perdure", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--prompt-words", type=int, default=2000)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_config(folder, a.model, 8192)
        times = []
        for start in range(a.starts + 1):
            service = Service(a.perdure, config, folder)
            times.append(service.first_token())
            if start < a.starts:
                service.stop()
        print(f"first start, weights being prepared: {times[0] * 1e3:.0f} ms")
        print(f"prepared: {statistics.median(times[1:]) * 1e3:.0f} ms ({min(times[1:]) * 1e3:.0f} to {max(times[1:]) * 1e3:.0f})")

        begun, asked = threading.Event(), threading.Event()

        def ask():
            for _ in stream({"prompt": "word " * a.prompt_words, "max_tokens": 200, "temperature": 0}):
                begun.set()
                if asked.is_set():
                    break

        thread = threading.Thread(target=ask)
        thread.start()
        begun.wait()
        model = service.model()
        held, memory = resident(model["pid"]), model["memory"]
        asked.set()
        thread.join()
        service.stop()
        mib = 1 << 20
        print(f"worker: {held / mib:.0f} MiB resident, {memory['weights_bytes'] / mib:.0f} of weights, "
              f"{memory['kv_bytes'] / mib:.0f} of keys and values, "
              f"{(held - memory['weights_bytes'] - memory['kv_bytes']) / mib:.0f} beyond them")


if __name__ == "__main__":
    main()
