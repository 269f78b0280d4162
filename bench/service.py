"""A service of its own for a benchmark, and its answers piece by piece."""

import json
import subprocess
import time
import urllib.request

PORT = 8619


def write_config(folder, model, max_context):
    config = folder / "perdure.toml"
    config.write_text(f'[server]\nport = {PORT}\n[models.m]\nsource = "{model.resolve()}"\n'
                      f'max_context = {max_context}\n')
    config.chmod(0o600)
    return config


def stream(body, timings=None):
    """Yields at each piece of the answer and at its end; `timings`, a dict, gets those of the end."""
    body = {**body, "stream": True, "ignore_eos": True}
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/completions", json.dumps(body).encode(),
                                     {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as response:
        for line in response:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise RuntimeError(chunk["error"]["message"])
            if timings is not None:
                timings.update(chunk.get("timings", {}))
            for choice in chunk["choices"]:
                if choice.get("text") or choice.get("finish_reason"):
                    yield


class Service:
    """Its log goes to `folder`/log."""

    def __init__(self, perdure, config, folder):
        self.perdure, self.folder = perdure, folder
        self.began = time.monotonic()
        with open(folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                [perdure, "serve", "--config", config, "--state-dir", folder / "state", "--runtime-dir", folder / "run"],
                stdout=log, stderr=log)

    def first_token(self):
        """Seconds from the start to the first piece of an answer that was asked for at once."""
        while True:
            try:
                for _ in stream({"prompt": "Hello!", "max_tokens": 1}):
                    return time.monotonic() - self.began
            except OSError:
                time.sleep(0.001)  # nothing listens yet

    def model(self):
        done = subprocess.run([self.perdure, "ps", "--json", "--runtime-dir", self.folder / "run"], capture_output=True,
                              check=True)
        return json.loads(done.stdout)["models"][0]

    def stop(self):
        self.process.terminate()
        self.process.wait()
