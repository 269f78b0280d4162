"""Train the demonstration model from nothing, or go on from a checkpoint.

The learning rate warms up, stays, and falls to zero over the last `--decay-share` of the run. A run
ends after `--minutes` or `--steps`, whichever comes first. The checkpoint holds everything needed to
go on: weights, their running average, both optimizers and the next shard.

`torchrun --nproc-per-node 2 train.py … --threads 1` shares each batch between two processes; on a
busy machine that is faster than one process with two threads, which would wait for each other at
every operation.
"""

import argparse
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from tokenizers import Tokenizer

import corpus
from model import NanoConfig, NanoModel
from muon import Muon

class Shards:
    """Batches in order from shard `index` on; the next shard is made while this one is used."""

    def __init__(self, a, index: int, rank: int, ranks: int):
        self.a, self.index, self.rank, self.ranks = a, index, rank, ranks
        self.pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        self.next = self._submit(index)

    def _submit(self, index: int):
        size = min(1.0, 0.05 + index / self.a.growing_shards)
        return self.pool.submit(corpus.make_shard, str(self.a.tokenizer), self.a.seed, index, size, self.a.shard_conversations, self.a.batch_tokens,
                                self.rank, self.ranks)

    def __iter__(self):
        while True:
            batches = self.next.result()
            self.next = self._submit(self.index + 1)
            yield from batches
            self.index += 1


def optimizers(model: NanoModel, a) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    return [Muon(matrices, lr=a.muon_lr, weight_decay=a.weight_decay, compute=getattr(torch, a.compute)),
            torch.optim.AdamW(others, lr=a.adam_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)]


def average_gradients(weights: list, ranks: int):
    flat = torch.cat([p.grad.flatten() for p in weights])
    dist.all_reduce(flat)
    flat /= ranks
    at = 0
    for p in weights:
        p.grad.copy_(flat[at:at + p.numel()].view_as(p))
        at += p.numel()


def save(path: Path, state: dict):
    """Written beside and renamed, so that a checkpoint is always whole."""
    beside = path.with_suffix(".tmp")
    torch.save(state, beside)
    os.replace(beside, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json")
    parser.add_argument("--checkpoint", type=Path, required=True, help="written every --save-seconds and at the end")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--weights", type=Path, help="an exported folder whose weights to begin with, its optimizers' state being lost")
    parser.add_argument("--first-shard", type=int, default=0, help="with --weights: skip shards that were seen")
    parser.add_argument("--compute", choices=("bfloat16", "float32"), default="bfloat16", help="of products; see model.py")
    parser.add_argument("--seed", type=int, default=1, help="of weights and conversations")
    parser.add_argument("--steps", type=int, default=10**9, help="steps of this run")
    parser.add_argument("--minutes", type=float, default=60, help="length of this run")
    parser.add_argument("--decay-share", type=float, default=0.3, help="part of the run over which the rate falls to zero")
    parser.add_argument("--warmup", type=int, default=100, help="steps")
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=0.004)
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--average", type=float, default=0.998, help="of the running average of the weights, per step")
    parser.add_argument("--batch-tokens", type=int, default=16384)
    parser.add_argument("--shard-conversations", type=int, default=6000)
    parser.add_argument("--growing-shards", type=int, default=24, help="shards until conversations reach full length")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--save-seconds", type=float, default=120)
    parser.add_argument("--no-compile", action="store_true")
    a = parser.parse_args()

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if ranks > 1:
        dist.init_process_group("gloo")
    model = NanoModel(NanoConfig(vocab_size=Tokenizer.from_file(str(a.tokenizer)).get_vocab_size()))
    model.compute = getattr(torch, a.compute)
    if a.weights:
        model.load_state_dict(load_file(a.weights / "model.safetensors"))
    weights = list(model.parameters())
    average = [p.detach().clone() for p in weights]
    optims = optimizers(model, a)
    step, seen, shard = 0, 0, a.first_shard
    if a.resume:
        state = torch.load(a.resume, weights_only=True)
        model.load_state_dict(state["model"])
        for mine, saved in zip(average, state["average"].values()):
            mine.copy_(saved)
        for optim, saved in zip(optims, state["optimizers"]):
            optim.load_state_dict(saved)
        for optim, rate in zip(optims, (a.muon_lr, a.adam_lr)):
            optim.param_groups[0]["lr"] = rate
        step, seen, shard = state["step"], state["tokens"], state["shard"]
    rates = [a.muon_lr, a.adam_lr]
    if not a.no_compile:
        model.compile_parts()
    shards = Shards(a, shard, rank, ranks)
    print(f"{sum(p.numel() for p in weights):,} parameters, from step {step}, shard {shard}", flush=True)

    def checkpoint():
        names = [n for n, _ in model.named_parameters()]
        save(a.checkpoint, {
            "model": {n: p.detach() for n, p in model.named_parameters()}, "average": dict(zip(names, average)),
            "optimizers": [o.state_dict() for o in optims], "step": step, "tokens": seen, "shard": shards.index + 1,
            "config": model.config.to_dict()})

    start = logged = saved = time.time()
    first_step, loss_sum, tokens_since = step, 0.0, 0
    for batch in shards:
        progress = torch.tensor(max((step - first_step) / a.steps, (time.time() - start) / (60 * a.minutes)))
        if ranks > 1:
            dist.broadcast(progress, 0)  # one clock for all
        progress = progress.item()
        if progress >= 1:
            break
        factor = min(1.0, (step + 1) / a.warmup)
        if a.decay_share > 0:
            factor = min(factor, (1 - progress) / a.decay_share)
        for optim, rate in zip(optims, rates):
            optim.param_groups[0]["lr"] = rate * factor
        loss = model(*(torch.from_numpy(x) for x in (batch.tokens, batch.docs, batch.positions, batch.targets)))
        loss.backward()
        if ranks > 1:
            average_gradients(weights, ranks)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for optim in optims:
            optim.step()
            optim.zero_grad()
        # A short memory at first, or the average would carry the random start along.
        torch._foreach_lerp_(average, weights, 1 - min(a.average, (1 + step) / (10 + step)))
        step += 1
        seen += a.batch_tokens
        tokens_since += a.batch_tokens
        loss_sum += loss.item()
        now = time.time()
        if step % 20 == 0 and rank == 0:
            print(f"step {step} shard {shards.index} tokens {seen / 1e6:.1f}M loss {loss_sum / 20:.4f} rate x{factor:.3f} "
                  f"{tokens_since / (now - logged):.0f} tok/s {(now - start) / 60:.1f} min", flush=True)
            logged, loss_sum, tokens_since = now, 0.0, 0
        if now - saved > a.save_seconds and rank == 0:
            checkpoint()
            saved = now
    if rank == 0:
        checkpoint()
    shards.pool.shutdown(cancel_futures=True)
    if ranks > 1:
        dist.destroy_process_group()
    print(f"done: step {step}, {seen / 1e6:.1f}M tokens", flush=True)


if __name__ == "__main__":
    main()
