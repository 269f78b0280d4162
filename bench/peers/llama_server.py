"""A llama-server of its own for a benchmark."""

import argparse
import json
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

START_S = 300


def options_of(doc):
    """A parser with what a comparison with it needs."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--perdure", type=Path, required=True)
    parser.add_argument("--peer", type=Path, required=True, help="folder of llama-server")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--gguf", type=Path, required=True)
    return parser


class LlamaServer:
    """`folder` holds the program; `options` are its own. Healthy when this returns."""

    def __init__(self, folder, options):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [folder / "llama-server", *options, "--host", "127.0.0.1", "--port", port]
        self.process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"{folder}: llama-server did not start")

    def post(self, path, body):
        """Milliseconds, and what it answered."""
        began = time.monotonic()
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            told = json.load(answer)
        return (time.monotonic() - began) * 1e3, told

    def complete(self, prompt, **more):
        return self.post("/completion", {"prompt": prompt, "n_predict": 1, "cache_prompt": True, "ignore_eos": True,
                                         "temperature": 0.0, **more})

    def stop(self):
        self.process.terminate()
        self.process.wait()
