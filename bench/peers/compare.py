"""Perdure beside llama.cpp or ik_llama.cpp: the same shapes, random weights, one machine, in turn.

    compare.py --perdure build/release/bin --peer NAME=FOLDER [--peer …] [--shape qwen3-0.6b]
               [--bits 16,8,4] [--rounds 3] [--threads N] [--long] [--work FOLDER] [--json FILE]

FOLDER holds llama-bench, llama-batched-bench and (for the continuation) llama-server. Needs numpy.
The models are kept in --work (about 4 GB for both shapes) and used again. Every round runs Perdure
and each peer once; a ratio is Perdure's rate over the peer's in one round, and the table has their
median, lowest and highest. Where a peer repacks weights on demand (-rtr), its better rate counts.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
from llama_server import LlamaServer

PROMPT, LONG_PROMPT, CONTEXT, STREAMS, ANSWER = 512, 8192, 128, (1, 4, 8, 16), 32
CACHED, CONTINUED = 1146, 16


def run(command, folder=None):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=folder)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


class Perdure:
    def __init__(self, folder, threads, long):
        self.program, self.threads, self.long = folder / "engine_bench", threads, long

    def model(self, work, shape, bits):
        folder = work / f"{shape}-{bits}"
        if not (folder / "done").exists():
            run([self.program, "--write", folder, "--shape", shape, "--bits", bits])
            (folder / "done").touch()
        return folder

    def measure(self, model, bits):
        command = [self.program, "--model", model, "--threads", self.threads, "--json"]
        if self.long and bits == 4:
            command += ["--long", LONG_PROMPT]
        report = json.loads(run(command))
        rates = {}
        for figure in report["figures"]:
            rate = figure["tokens_per_s"]["median"]
            key, streams = figure["key"], figure["streams"]
            rates[(key, streams)] = rate
        return rates


class Peer:
    def __init__(self, name, folder, threads, long):
        self.name, self.folder, self.threads, self.long = name, folder.resolve(), threads, long
        done = subprocess.run([str(folder / "llama-bench"), "--help"], capture_output=True, text=True)
        self.repacks = "-rtr" in done.stdout + done.stderr

    def model(self, work, shape, bits):
        path = work / f"{shape}-{bits}.gguf"
        if not path.exists():
            gguf.write(f"{path}.part", shape, bits)
            os.rename(f"{path}.part", path)
        return path

    def measure(self, model, bits):
        best = {}
        for repack in (False, True) if self.repacks else (False,):
            for key, rate in self.measure_once(model, bits, repack).items():
                best[key] = max(rate, best.get(key, 0.0))
        return best

    def measure_once(self, model, bits, repack):
        # llama-bench takes a value, the others take a flag.
        output = run([self.folder / "llama-bench", "-m", model, "-t", self.threads, "-p", PROMPT,
                      "-n", 0, "-r", 2, "-o", "json"] + (["-rtr", 1] if repack else []))
        rates = {("prefill", 1): json.loads(output[output.index("["):])[0]["avg_ts"]}
        flag = ["-rtr"] if repack else []
        streams = ",".join(map(str, STREAMS if bits == 4 else STREAMS[:1]))
        for row in self.batched(model, CONTEXT, streams, flag):
            rates[("decode", row["B"])] = row["S_TG"]
        if self.long and bits == 4:
            for row in self.batched(model, LONG_PROMPT, "1", flag):
                rates[("long_prefill", 1)] = row["S_PP"]
                rates[("long_decode", 1)] = row["S_TG"]
        if (self.folder / "llama-server").exists():
            rates[("continuation", 1)] = self.continuation(model, flag)
        return rates

    def batched(self, model, prompt, streams, flag):
        """Rows of llama-batched-bench's table; its columns have one meaning in all versions."""
        most = max(map(int, streams.split(",")))
        with tempfile.TemporaryDirectory() as folder:  # ik_llama.cpp leaves the table in a log there
            output = run([self.folder / "llama-batched-bench", "-m", model, "-t", self.threads, "-c",
                          most * (prompt + ANSWER) + 64, "-npp", prompt, "-ntg", ANSWER, "-npl",
                          streams, *flag], folder)
            output += "".join(log.read_text() for log in Path(folder).glob("*.log"))
        for line in output.splitlines():
            line = re.sub(r"^\[\d+\] ", "", line)  # of the log's lines
            cells = [cell.strip() for cell in line.strip("| \n").split("|")]
            if len(cells) == 10 and re.fullmatch(r"\d+", cells[0]):
                yield {"B": int(cells[2]), "S_PP": float(cells[5]), "S_TG": float(cells[7])}

    def continuation(self, model, flag):
        server = LlamaServer(self.folder, ["-m", model, "-t", self.threads, "-c", 4096, "-np", 1, *flag])
        try:
            rates = []
            for attempt in range(3):
                first = [1000 + attempt] + [300 + i * 7 % 5000 for i in range(CACHED - 1)]
                server.complete(first)
                timings = server.complete(first + [400 + i for i in range(CONTINUED)])[1]["timings"]
                rates.append(1000.0 * timings["prompt_n"] / timings["prompt_ms"])
            return statistics.median(rates)
        finally:
            server.stop()


def name_of(key, streams):
    return {
        "prefill": f"prefill {PROMPT}",
        "decode": "decode" if streams == 1 else f"decode, {streams} streams",
        "continuation": f"{CONTINUED} new tokens on {CACHED}",
        "long_prefill": f"prefill {LONG_PROMPT}",
        "long_decode": f"decode at {LONG_PROMPT}",
    }[key]


def summary(values):
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def rows_of(shape, bits, ours, theirs):
    """ours: a list of rates by key, a round each; theirs: {peer: such a list}."""
    for key in ours[0]:
        ratios = {}
        for peer, rounds in theirs.items():
            if all(key in rates for rates in rounds):
                pairs = [(mine[key], its[key]) for mine, its in zip(ours, rounds)]
                ratios[peer] = {"tokens_per_s": summary([its for _, its in pairs]),
                                "ratio": summary([mine / its for mine, its in pairs])}
        if ratios:
            yield {"shape": shape, "bits": bits, "work": name_of(*key),
                   "perdure": summary([rates[key] for rates in ours]), "peers": ratios}


def markdown(rows, peers):
    lines = ["| shape | bits | work | Perdure tok/s | "
             + " | ".join(f"{p} tok/s | ratio (lowest–highest)" for p in peers) + " |",
             "|---|---|---|---|" + "---|---|" * len(peers)]
    for row in rows:
        cells = [row["shape"], str(row["bits"]), row["work"], f"{row['perdure']['median']:.1f}"]
        for peer in peers:
            if peer not in row["peers"]:
                cells += ["", ""]
                continue
            rate, ratio = row["peers"][peer]["tokens_per_s"], row["peers"][peer]["ratio"]
            cells += [f"{rate['median']:.1f}",
                      f"{ratio['median']:.2f} ({ratio['lowest']:.2f}–{ratio['highest']:.2f})"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--perdure", type=Path, required=True, help="folder of engine_bench")
    parser.add_argument("--peer", action="append", required=True, metavar="NAME=FOLDER")
    parser.add_argument("--shape", default="qwen3-0.6b", help=", ".join(gguf.SHAPES))
    parser.add_argument("--bits", default="16,8,4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--long", action="store_true", help="also prompts of 8,192 tokens, 4 bits")
    parser.add_argument("--work", type=Path, default=Path("/tmp/perdure-peers"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.work = args.work.resolve()  # the peers run elsewhere
    args.work.mkdir(parents=True, exist_ok=True)
    perdure = Perdure(args.perdure, args.threads, args.long)
    peers = []
    for item in args.peer:
        name, _, folder = item.partition("=")
        if not (Path(folder) / "llama-bench").exists():
            parser.error(f"--peer {item}: no llama-bench in '{folder}'; build it there first")
        peers.append(Peer(name, Path(folder), args.threads, args.long))

    rows = []
    for bits in map(int, args.bits.split(",")):
        folder = perdure.model(args.work, args.shape, bits)
        file = peers[0].model(args.work, args.shape, bits)
        ours, theirs = [], {peer.name: [] for peer in peers}
        for turn in range(args.rounds):
            print(f"{args.shape}, {bits} bits, round {turn + 1}", file=sys.stderr)
            ours.append(perdure.measure(folder, bits))
            for peer in peers:
                theirs[peer.name].append(peer.measure(file, bits))
        rows += rows_of(args.shape, bits, ours, theirs)
    print(markdown(rows, [peer.name for peer in peers]))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
