"""Held-out scores of an exported model: values, names and sums that training never showed.

With --model alone, the training code scores it: greedy decoding gives exactly the expected answer if
and only if, at every position of that answer, the likeliest token is the expected one; so one pass
over the whole conversation is enough. With --url, a running service answers the same conversations
over its API, which scores its engine, template, tokenizer and precision too.
"""

import argparse
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from random import Random

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import corpus
from conversations import arithmetic, documents, json_answers, knowledge, long_answers, mix, recall, smalltalk, text_tasks, tool_use
from conversations.dialogue import Dialogue
from model import NanoConfig, NanoModel

_DISTRACTIONS = (smalltalk.chat_turn, arithmetic.sum_turn, text_tasks.repeat_turn, knowledge.knowledge_turn, recall.tell_turn)


def _recall(turns_between: tuple[int, int]):
    def make(d: Dialogue):
        recall.tell_turn(d, d.rng.choice(("name", "city", "code", "number", "colour", "pet_name", "favourite")))
        key, = d.facts
        fields, kind = d.facts[key]
        for _ in range(d.rng.randint(*turns_between)):
            d.rng.choice(_DISTRACTIONS)(d)
            if d.facts[key][0] is not fields:
                return False  # told anew on the way
        d.say(d.rng.choice(recall.KINDS[kind][1]).format(**fields), recall.KINDS[kind][2].format(**fields))
        # "The number" and "the code" are ambiguous if another thing like it was told.
        return not any(k != key and f[1] in ("number", "code", "owner") for k, f in d.facts.items())
    return make


def _sum(op: str):
    def make(d: Dialogue):
        drawn = arithmetic.draw(d.rng, True, op)
        d.say(arithmetic.question(d, *drawn), arithmetic.answer(*drawn))
    return make


def _tool_call(tools: tuple[int, int], invented: bool = False):
    def make(d: Dialogue):
        offered = tool_use.offer_tools(d, d.rng.randint(*tools))
        if invented:
            offered = [tool_use.Tool(d, tool_use.invented_shape(d))] + offered[1:]
            d.tools = [t.schema for t in offered]
            d.rng.shuffle(d.tools)
        ask, arguments = offered[0].request(d)
        d.user(ask)
        d.call([(offered[0].name, arguments)])
    return make


def _tool_result(d: Dialogue):
    tool_use.tool_turn(d, tool_use.offer_tools(d, 1))


def _no_tool_needed(d: Dialogue):
    tool_use.offer_tools(d, d.rng.randint(1, 3))
    smalltalk.greeting_turn(d)


def _mixed(d: Dialogue):
    mix._chat(d, 6, False)
    return bool(d.facts) and recall.ask_turn(d) is None


def _turn(function):
    return lambda d: function(d)


TASKS = {
    "recall, next turn": _recall((0, 0)),
    "recall after 1-3 other turns": _recall((1, 3)),
    "recall after 6-10 other turns": _recall((6, 10)),
    "recall in a mixed conversation": _mixed,
    "addition, one number above 40": _sum("+"),
    "subtraction 0-99": _sum("-"),
    "multiplication to 12 (not held out)": _sum("*"),
    "division within that table (not held out)": _sum("/"),
    "three numbers (not held out)": _turn(arithmetic.three_numbers_turn),
    "tool call, one tool offered": _tool_call((1, 1)),
    "tool call, 3-4 tools offered": _tool_call((3, 4)),
    "tool call, invented tool of 1-3": _tool_call((1, 3), invented=True),
    "answer from a tool's result": _tool_result,
    "tools offered but not needed": _no_tool_needed,
    "JSON from a sentence": _turn(json_answers.filled_turn),
    "JSON from keys and values": _turn(json_answers.pairs_turn),
    "repeat after me": _turn(text_tasks.repeat_turn),
    "who lives where": _turn(documents.people_turns),
    "detail in a long text": lambda d: documents.hidden_detail_turns(d, 40),
    "world facts (not held out)": _turn(knowledge.knowledge_turn),
    "counting (not held out)": _turn(long_answers.count_turn),
}


def load(folder: Path) -> NanoModel:
    config = json.loads((folder / "config.json").read_text())
    model = NanoModel(NanoConfig(**{k: config[k] for k in NanoConfig().to_dict()}))
    missing, unexpected = model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    assert not missing and not unexpected
    return model.eval()


def examples(task, tokenizer: Tokenizer, seed: str, wanted: int) -> list[tuple[list[int], int, str, Dialogue]]:
    """(ids, where the scored answer begins, the answer, the conversation)."""
    rng, out = Random(seed), []
    while len(out) < wanted:
        d = Dialogue(rng, held_out=True)
        if task(d) is False or not d.messages:
            continue
        while d.messages[-1]["role"] != "assistant":
            d.messages.pop()
        ids, counted = corpus.encode(tokenizer, d.messages, d.tools)
        end = max(i for i, c in enumerate(counted) if c) + 1
        begin = end
        while counted[begin - 1]:
            begin -= 1
        if end <= 1024:
            out.append((ids[:end], begin, tokenizer.decode(ids[begin:end - 1], skip_special_tokens=False), d))
    return out


@torch.no_grad()
def score(model: NanoModel, batch: list, tokenizer: Tokenizer, failures: list) -> int:
    right = 0
    batch = sorted(batch, key=lambda e: len(e[0]))
    for first in range(0, len(batch), 16):
        part = batch[first:first + 16]
        length = -(-max(len(e[0]) for e in part) // 64) * 64  # few shapes: each has to be prepared once
        tokens = np.zeros((16, length), np.int64)
        for row, (ids, *_) in zip(tokens, part):
            row[:len(ids)] = ids
        tokens = torch.from_numpy(tokens)
        best = model.logits(model.hidden(tokens, torch.zeros_like(tokens))).argmax(-1)
        for i, (ids, begin, answer, d) in enumerate(part):
            said = best[i, begin - 1:len(ids) - 1].tolist()
            if said == ids[begin:]:
                right += 1
            else:
                failures.append((d, answer, tokenizer.decode(said, skip_special_tokens=False)))
    return right


def ask(url: str, d: Dialogue) -> str:
    """The service's greedy answer to all but the last message."""
    messages = json.loads(json.dumps(d.messages[:-1]))
    ids, waiting = count(1), []  # waiting: calls whose results come next
    for m in messages:
        for call in m.get("tool_calls", ()):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
            call["id"] = f"call_{next(ids)}"
            waiting.append(call["id"])
        if m["role"] == "tool":
            m["tool_call_id"] = waiting.pop(0)
    body = {"messages": messages, "temperature": 0, "max_tokens": 400} | ({"tools": d.tools} if d.tools else {})
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as response:
        return json.load(response)["choices"][0]["message"]["content"]


def score_service(url: str, batch: list, failures: list) -> int:
    right = 0
    with ThreadPoolExecutor(8) as pool:
        for (_, _, answer, d), said in zip(batch, pool.map(lambda e: ask(url, e[3]), batch)):
            if said == answer:
                right += 1
            else:
                failures.append((d, answer, said))
    return right


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="exported folder")
    parser.add_argument("--url", help="of a service that serves it: score its answers instead")
    parser.add_argument("--count", type=int, default=300, help="conversations for each task")
    parser.add_argument("--only", default="", help="tasks whose name holds this text")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--failures", type=int, default=0, help="print so many wrong answers of each task")
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    model, tokenizer = None if a.url else load(a.model), Tokenizer.from_file(str(a.model / "tokenizer.json"))
    print("| Task | Exactly right |\n|---|---|")
    for name, task in TASKS.items():
        if a.only not in name:
            continue
        failures: list = []
        batch = examples(task, tokenizer, f"{a.seed}/{name}", a.count)
        right = score_service(a.url, batch, failures) if a.url else score(model, batch, tokenizer, failures)
        print(f"| {name} | {right / a.count:.1%} |", flush=True)
        for d, wanted, said in failures[:a.failures]:
            print(f"    asked {d.messages[-2]['content'][-200:]!r}\n    wanted {wanted!r}\n    said   {said!r}")


if __name__ == "__main__":
    main()
