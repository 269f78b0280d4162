"""Train the byte-level BPE tokenizer and write it in the Hugging Face layout.

Merges inside words are learned on words without their leading space; then the commonest words get
one more merge that joins the space. So a rare word (a name to be copied, say) is cut the same way
after a space, a quote or a line break, which makes copying easy for a small model.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

import render
from conversations.mix import conversation

SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKERS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
VOCAB_SIZE = 2048
SPACED_WORDS = 560
SHORT_WORDS = set("a i an am as at be by do go he hi if in is it me my no of on or so to up us we".split())
SPACE = "Ġ"  # the byte 0x20 in the byte-level alphabet


def texts(seed: int, count: int):
    rng = Random(seed)
    for _ in range(count):
        d = conversation(rng)
        text = "".join(piece for piece, _ in render.pieces(d.messages, d.tools))
        for marker in SPECIAL + MARKERS:
            text = text.replace(marker, "\n")
        yield text


def qwen_pre_tokenizer():
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def learn_pieces(corpus: list[str], size: int) -> tuple[dict[str, int], list[list[str]]]:
    """BPE over words without their leading space (or other leading character)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.Split(Regex(r"\p{L}+|[^\p{L}]+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
                                  min_frequency=20)
    tokenizer.train_from_iterator(corpus, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [m if isinstance(m, list) else m.split(" ") for m in model["merges"]]


def build(seed: int, count: int) -> Tokenizer:
    corpus = list(texts(seed, count))
    room = VOCAB_SIZE - len(SPECIAL) - len(MARKERS)
    vocab, merges = learn_pieces(corpus, room - SPACED_WORDS)

    counts: Counter[str] = Counter()
    split = qwen_pre_tokenizer()
    for text in corpus:
        counts.update(piece for piece, _ in split.pre_tokenize_str(text) if piece[0] == SPACE)
    for word, _ in counts.most_common():
        if len(vocab) == room:
            break
        if word[1:] in vocab and word not in vocab and (len(word) > 3 or word[1:].lower() in SHORT_WORDS):
            vocab[word] = len(vocab)
            merges.append([SPACE, word[1:]])
    assert len(vocab) == room, f"only {len(vocab)} pieces: train on more conversations"

    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(m) for m in merges]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in MARKERS])
    return tokenizer


def write(tokenizer: Tokenizer, folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")) + "\n")
    added = {str(tokenizer.token_to_id(t)): {"content": t, "lstrip": False, "normalized": False, "rstrip": False,
                                             "single_word": False, "special": t in SPECIAL} for t in SPECIAL + MARKERS}
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": None,
        "chat_template": render.TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": 2048,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }, indent=2, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer.json and tokenizer_config.json")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--conversations", type=int, default=40000, help="how many to learn from")
    arguments = parser.parse_args()
    tokenizer = build(arguments.seed, arguments.conversations)
    write(tokenizer, arguments.out)
    sample = "Hello, wörld! My name is Zorbit 🙂 and 17+25=42.\n\n  {\"a\": 1}"
    assert tokenizer.decode(tokenizer.encode(sample).ids) == sample
    print(f"{tokenizer.get_vocab_size()} tokens; e.g. {tokenizer.encode(sample).tokens}")


if __name__ == "__main__":
    main()
