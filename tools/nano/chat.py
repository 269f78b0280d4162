"""Talk to an exported model in the terminal (greedy, without a cache: for trying it out only)."""

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer

import evaluate
import render


@torch.no_grad()
def answer(model, tokenizer: Tokenizer, messages: list[dict], tools: list[dict] = (), limit: int = 512) -> str:
    ids = tokenizer.encode(render.with_template(messages, list(tools), add_generation_prompt=True), add_special_tokens=False).ids
    end, first = tokenizer.token_to_id(render.END), len(ids)
    while len(ids) - first < limit:
        tokens = torch.tensor([ids])
        best = model.logits(model.hidden(tokens, torch.zeros_like(tokens))[:, -1]).argmax(-1).item()
        if best == end:
            break
        ids.append(best)
    return tokenizer.decode(ids[first:], skip_special_tokens=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--say", action="append", default=[], help="the user's next message; repeat for more turns")
    a = parser.parse_args()
    torch.set_num_threads(2)
    model, tokenizer = evaluate.load(a.model), Tokenizer.from_file(str(a.model / "tokenizer.json"))
    messages: list[dict] = []
    waiting = iter(a.say) if a.say else iter(lambda: input("> "), "")
    for text in waiting:
        if a.say:
            print(f"> {text}")
        messages.append({"role": "user", "content": text})
        messages.append({"role": "assistant", "content": answer(model, tokenizer, messages)})
        print(messages[-1]["content"])


if __name__ == "__main__":
    main()
