"""How far pages of KV shrink: has a model compute some of real text, and measures them.

    kv_codec_bench.py --bin build/release/bin --model models/nano TEXT ...

Only the KV of a trained model says anything; with --model nano's it is that of a very small one.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

from service import Service, stream, write_config


def pages_waiting(perdure, folder):
    done = subprocess.run([perdure, "cache", "stats", "--json", "--runtime-dir", folder / "run"], capture_output=True,
                          check=True)
    return json.loads(done.stdout)["models"]["m"]["snapshots"]["pages_waiting"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--max-context", type=int, default=2048)
    parser.add_argument("--characters", type=int, default=1500, help="of each text, as the prompt")
    parser.add_argument("text", type=Path, nargs="+")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_config(folder, a.model, a.max_context)
        service = Service(a.bin / "perdure", config, folder)
        try:
            service.first_token()
            for text in a.text:
                # Different parts: the same one again would go on as it was begun.
                for part, cache in enumerate(({"type": "kv"}, {"type": "quantized_kv", "bits": 8})):
                    prompt = text.read_text()[part * a.characters:][:a.characters]
                    for _ in stream({"prompt": prompt or "Hello!", "max_tokens": 16, "cache": cache}):
                        pass
            while pages_waiting(a.bin / "perdure", folder) > 0:
                time.sleep(0.1)
        finally:
            service.stop()
        subprocess.run([a.bin / "kv_codec_bench", folder / "state" / "conversations" / "m" / "kv.mdb", "m"], check=True)


if __name__ == "__main__":
    main()
