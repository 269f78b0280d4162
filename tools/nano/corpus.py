"""Token rows for training: generated, tokenized and packed, one numbered shard at a time.

Shard k of a seed is always the same, so a training run can stop anywhere and go on elsewhere.
Conversations are packed into rows of a few lengths; attention stays inside a conversation, and
short rows keep it cheap.
"""

import argparse
import time
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from tokenizers import Tokenizer

import render
from conversations.mix import conversation

ROW_LENGTHS = (128, 256, 512)
IGNORED = -100
COUNTED_SHARE = 0.5  # of a batch's tokens, at most; a fixed size, so that shapes stay the same

Document = tuple[list[int], list[bool]]  # token ids, and which of them the loss counts


@dataclass
class Batch:
    tokens: np.ndarray  # int64 [rows, length]
    docs: np.ndarray  # int32 [rows, length]: which conversation of the row; -1 is padding
    positions: np.ndarray  # int64 [n]: the places in the flattened rows whose next token counts
    targets: np.ndarray  # int64 [n]: that next token; IGNORED fills up


def encode(tokenizer: Tokenizer, messages: list[dict], tools: list[dict]) -> Document:
    ids, counted = [], []
    for text, loss in render.pieces(messages, tools):
        piece = tokenizer.encode(text, add_special_tokens=False).ids
        ids += piece
        counted += [loss] * len(piece)
    return ids, counted


def check(tokenizer: Tokenizer, messages: list[dict], tools: list[dict]):
    """The template, and the tokenization of the whole text, agree with what training sees."""
    render.check(messages, tools)
    whole = tokenizer.encode(render.with_template(messages, tools), add_special_tokens=False).ids
    if whole != encode(tokenizer, messages, tools)[0]:
        raise AssertionError(f"tokenized in pieces and as a whole differ: {messages}")


def _pack(documents: list[Document]) -> dict[int, list[list[Document]]]:
    """Rows of each length. A row is opened by the longest conversation left, in the shortest row
    length that holds it, and filled up with the longest ones that still fit."""
    documents = sorted(documents, key=lambda d: len(d[0]))
    sizes = [len(d[0]) for d in documents]
    rows: dict[int, list[list[Document]]] = {length: [] for length in ROW_LENGTHS}
    while documents:
        room = min((n for n in ROW_LENGTHS if n >= sizes[-1]), default=0)
        row, length = [], room
        while at := bisect_right(sizes, room):
            row.append(documents.pop(at - 1))
            room -= sizes.pop(at - 1)
        if not row:  # longer than the longest row
            documents.pop()
            sizes.pop()
            continue
        rows[length].append(row)
    return rows


def _batch(rows: list[list[Document]], length: int, batch_tokens: int) -> Batch:
    tokens = np.zeros((len(rows), length), np.int64)
    docs = np.full((len(rows), length), -1, np.int32)
    targets = np.full((len(rows), length), IGNORED, np.int64)
    for r, row in enumerate(rows):
        at = 0
        for number, (ids, counted) in enumerate(row):
            end = at + len(ids)
            tokens[r, at:end] = ids
            docs[r, at:end] = number
            targets[r, at:end - 1] = np.where(counted[1:], ids[1:], IGNORED)
            at = end
    targets = targets.reshape(-1)
    picked = np.flatnonzero(targets != IGNORED)[:int(batch_tokens * COUNTED_SHARE)]
    positions = np.zeros(int(batch_tokens * COUNTED_SHARE), np.int64)
    positions[:len(picked)] = picked
    wanted = np.full(len(positions), IGNORED, np.int64)
    wanted[:len(picked)] = targets[picked]
    return Batch(tokens, docs, positions, wanted)


def shard(tokenizer: Tokenizer, seed: int, index: int, size: float, conversations: int, batch_tokens: int,
          part: int = 0, parts: int = 1) -> list[Batch]:
    """The batches of shard `index`, shuffled; `size` (0 to 1) is how long conversations may grow.

    With `parts` > 1, each batch is split evenly among as many processes, and this is one's share."""
    rng = Random(f"{seed}/{index}")
    documents = []
    for i in range(conversations):
        d = conversation(rng, size)
        if i < 20:
            check(tokenizer, d.messages, d.tools)
        documents.append(encode(tokenizer, d.messages, d.tools))
    batches = []
    for length, rows in _pack(documents).items():
        rng.shuffle(rows)
        count = batch_tokens // length
        batches += [_batch(rows[i + part:i + count:parts], length, batch_tokens // parts)
                    for i in range(0, len(rows) - count + 1, count)]
    rng.shuffle(batches)
    return batches


@cache
def _tokenizer(path: str) -> Tokenizer:
    return Tokenizer.from_file(path)


def make_shard(tokenizer_path: str, *arguments) -> list[Batch]:
    """`shard` for a worker process, which loads the tokenizer once."""
    return shard(_tokenizer(tokenizer_path), *arguments)


def main():
    parser = argparse.ArgumentParser(description="Show what a shard holds.")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--index", type=int, default=0)
    parser.add_argument("--size", type=float, default=1.0)
    parser.add_argument("--conversations", type=int, default=8000)
    parser.add_argument("--batch-tokens", type=int, default=8192)
    parser.add_argument("--show", type=int, default=3, help="how many conversations to print")
    a = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(a.tokenizer))
    start = time.time()
    batches = shard(tokenizer, a.seed, a.index, a.size, a.conversations, a.batch_tokens)
    print(f"{len(batches)} batches in {time.time() - start:.1f} s")
    for length in ROW_LENGTHS:
        chosen = [b for b in batches if b.tokens.shape[1] == length]
        if chosen:
            filled = np.mean([np.mean(b.docs >= 0) for b in chosen])
            counted = np.mean([np.sum(b.targets != IGNORED) / b.tokens.size for b in chosen])
            print(f"rows of {length}: {len(chosen)} batches, {filled:.0%} filled, {counted:.0%} counted")
    rng = Random(a.seed)
    for _ in range(a.show):
        d = conversation(rng, a.size)
        print("\n" + render.with_template(d.messages, d.tools))


if __name__ == "__main__":
    main()
