#!/usr/bin/env python3
"""Makes the goldens in this folder: small tokenizers, strings, and what they are tokenized to.

Needs PyPI's `tokenizers` (0.23.3 made the files that are committed). Run without arguments; the
output is the same every time. make_kinds.py uses parts of it.

  <name>.tokenizer.json   the tokenizer
  <name>.strings.bin      records of: u16 length, bytes (may be broken UTF-8)
                          u16 count, ids as u16 (encode without special tokens; little-endian)
  <name>.decoded.bin      records of: u16 count, ids as u16, u16 length, decoded text
                          (special tokens left out)
"""

import json
import pathlib
import random
import struct
import sys
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent

QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

DEEPSEEK = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

ASSIGNED = [
    c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")
]
MARKS = [c for c in ASSIGNED if unicodedata.combining(chr(c))]
SPACES = [9, 10, 11, 12, 13, 0x1C, 0x1F, 0x20, 0x85, 0xA0, 0x1680, 0x180E, 0x2000, 0x2003, 0x2009,
          0x200A, 0x200B, 0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF]
# Newer than Unicode 9 with a combining class or a decomposition: see unicode_normalize.cc.
NEW = [
    (0x7FD, 0x7FD), (0x898, 0x89F), (0x8CA, 0x8D3), (0x9FE, 0x9FE), (0xC3C, 0xC3C),
    (0xD3B, 0xD3C), (0xEBA, 0xEBA), (0x1715, 0x1715), (0x1ABF, 0x1ACE), (0x1DF6, 0x1DFA),
    (0x32FF, 0x32FF), (0xA7F2, 0xA7F4), (0xA82C, 0xA82C), (0xAB69, 0xAB69), (0x10781, 0x10785),
    (0x10787, 0x107B0), (0x107B2, 0x107BA), (0x10D24, 0x10D27), (0x10EAB, 0x10EAC),
    (0x10EFD, 0x10EFF), (0x10F46, 0x10F50), (0x10F82, 0x10F85), (0x11070, 0x11070),
    (0x1133B, 0x1133B), (0x1145E, 0x1145E), (0x11839, 0x1183A), (0x11930, 0x11930),
    (0x11935, 0x11935), (0x11938, 0x11938), (0x1193D, 0x1193E), (0x11943, 0x11943),
    (0x119E0, 0x119E0), (0x11A34, 0x11A34), (0x11A47, 0x11A47), (0x11A99, 0x11A99),
    (0x11D42, 0x11D42), (0x11D44, 0x11D45), (0x11D97, 0x11D97), (0x11F41, 0x11F42),
    (0x16FF0, 0x16FF1), (0x1E030, 0x1E06D), (0x1E08F, 0x1E08F), (0x1E130, 0x1E136),
    (0x1E2AE, 0x1E2AE), (0x1E2EC, 0x1E2EF), (0x1E4EC, 0x1E4EF), (0x1F16C, 0x1F16C),
    (0x1FBF0, 0x1FBF9),
]
NEW = [c for first, last in NEW for c in range(first, last + 1)]

WORDS = (
    "the of and to in is that for it was on are as with his they at be this have from or one had by "
    "word but not what all were we when your can said there use an each which she do how their if "
    "will up other about out many then them these so some her would make like him into time has look "
    "two more write go see number no way could people my than first water been call who oil its now "
    "find long down day did get come made may part Straße Überraschung naïve façade garçon année "
    "mañana coração język źródło život čeština гость молоко Привет мир Ελλάδα καλημέρα שלום עולם مرحبا "
    "العالم नमस्ते दुनिया ভাষা தமிழ் ภาษาไทย 你好 世界 語言 日本語 テスト ひらがな 한국어 안녕하세요 "
    "Việt tiếng function return const import class self None True while range print"
).split()
CODE = [
    "def f(x):\n\treturn x ** 2\n", "for (int i = 0; i < n; ++i) {\n    sum += a[i];\n}\n",
    "<div class=\"a\">&nbsp;</div>\r\n", "SELECT * FROM t WHERE a='b';", "{\"key\": [1, 2.5e-3, null]}",
    "#include <vector>\n\n\n", "x = lambda *a, **k: (a, k)  # comment\n", "https://example.org/a?b=c&d=%20",
    "I'm you'RE we'Ve he'LL it'S 'd", "if(a&&b||!c)return~d;", "```rust\nfn main() {}\n```",
]
EMOJI = ["👍🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇯🇵", "❤️", "1️⃣", "🧑🏿‍🚀", "☺", "🫠"]


class Strings:
    """Seeded strings of every kind that text can be."""

    def __init__(self, seed, tokens):
        self.rng = random.Random(seed)
        self.tokens = tokens
        self.uncovered = []

    def assigned(self):
        """Walks over all of Unicode in random order."""
        if not self.uncovered:
            self.uncovered = ASSIGNED[:]
            self.rng.shuffle(self.uncovered)
        return chr(self.uncovered.pop())

    def piece(self):
        r = self.rng
        kind = r.randrange(19)
        if kind < 4:
            return " " * r.randrange(2) + r.choice(WORDS)
        if kind == 4:
            return "".join(self.assigned() for _ in range(r.randrange(1, 8)))
        if kind == 5:
            start = r.choice(ASSIGNED)
            return "".join(chr(min(start + r.randrange(40), 0xD7FF) if start < 0xD800
                               else max(0xE000, min(start + r.randrange(40), 0x10FFFF)))
                           for _ in range(r.randrange(1, 6)))
        if kind == 6:
            base = r.choice("aeoAnuİſ가각\u1100\u1161\u09C7\u0B47\u11935כ한")
            return base + "".join(chr(r.choice(MARKS if r.random() < 0.7 else NEW))
                                  for _ in range(r.randrange(1, 5)))
        if kind == 7:
            return "".join(chr(r.choice(range(0x1100, 0x1200))) for _ in range(r.randrange(1, 5)))
        if kind == 8:
            return "".join(chr(r.choice(SPACES)) for _ in range(r.randrange(1, 5)))
        if kind == 9:
            return r.choice([" ", "\n", "\r\n", "\t", "\r"]) * r.randrange(1, 9)
        if kind == 10:
            return r.choice(CODE)
        if kind == 11:
            return str(r.randrange(10 ** r.randrange(1, 12))) + r.choice(["", ".5", ",000", "٣", "½", "Ⅷ"])
        if kind == 12:
            return "".join(r.choice(EMOJI) for _ in range(r.randrange(1, 3)))
        if kind == 13:
            return chr(r.randrange(0x20)) + chr(r.randrange(0x7F, 0xA0))
        if kind in (14, 15):
            return r.choice(self.tokens)
        if kind == 16:
            token = r.choice(self.tokens)
            cut = r.randrange(len(token) + 1)
            return r.choice([token[:cut], token[cut:], " " + token + "  ", token.upper(), token + "x"])
        if kind == 17:
            return "".join(r.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") for _ in range(r.randrange(1, 6)))
        return r.choice("aZ=- .") * r.randrange(2, 30)

    def text(self):
        return "".join(self.piece() for _ in range(self.rng.randrange(1, 5)))

    def bytes(self):
        """Text, one in six of them broken."""
        data = bytearray(self.text().encode())
        if self.rng.random() < 1 / 6:
            for _ in range(self.rng.randrange(1, 4)):
                at = self.rng.randrange(len(data) + 1)
                how = self.rng.randrange(3)
                if how == 0 and data:
                    del data[min(at, len(data) - 1)]
                elif how == 1 and data:
                    data[min(at, len(data) - 1)] = self.rng.randrange(256)
                else:
                    data[at:at] = self.rng.choice(
                        [b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xe2\x82", b"\xf0\x9f"])
        return bytes(data)


def corpus(seed, lines, all_scripts):
    strings = Strings(seed, ["-"])
    rng = random.Random(seed + 1)
    for _ in range(lines):
        yield " ".join(rng.choice(WORDS) for _ in range(rng.randrange(3, 12)))
        yield rng.choice(CODE)
        if all_scripts:
            yield strings.text()


def trained(normalizer, pre_tokenizer, vocab_size, byte_level=True, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if byte_level else [])
    tokenizer.train_from_iterator(corpus(7, 1500, all_scripts=byte_level), trainer)
    return tokenizer


def byte_level_split(pattern):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])


def qwen():
    tokenizer = trained(normalizers.NFC(), byte_level_split(QWEN), 3000)
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False, special=True)
         for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>")])
    tokenizer.add_tokens(
        [AddedToken(t, normalized=False)
         for t in ("<tool_call>", "</tool_call>", "<think>", "</think>", "<tool_call>>")])
    return tokenizer


def llama3():
    tokenizer = trained(None, byte_level_split(LLAMA3), 1200, ignore_merges=True)
    # ignore_merges matters for tokens that no merge makes.
    data = json.loads(tokenizer.to_str())
    merges = data["model"]["merges"]
    dropped = set(random.Random(3).sample(range(len(merges)), 60))
    data["model"]["merges"] = [m for i, m in enumerate(merges) if i not in dropped]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.add_special_tokens(
        [AddedToken(t, normalized=False, special=True)
         for t in ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")])
    return tokenizer


def variants():
    """Everything that added tokens can be, with a normalizer that changes lengths."""
    tokenizer = trained(
        normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(),
                              normalizers.Replace(Regex(r"\d{4,}"), "#number#")]),
        pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Punctuation("merged_with_previous"),
            pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)]),
        900)
    for token in [
        AddedToken("<l>", lstrip=True, normalized=False), AddedToken("<r>", rstrip=True, normalized=False),
        AddedToken("<lr>", lstrip=True, rstrip=True, special=True, normalized=False),
        AddedToken("word", single_word=True, normalized=False), AddedToken("über", single_word=True),
        AddedToken("<N>", normalized=True), AddedToken("ﬁn", normalized=True),
        AddedToken("<NL>", normalized=True, lstrip=True, rstrip=True), AddedToken("<N><N>", normalized=True),
        AddedToken(" sp", normalized=False), AddedToken("日本", normalized=False, special=True),
        AddedToken("number", normalized=True),
    ]:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    return tokenizer


def sentencepiece():
    """Llama 2's building blocks: characters, byte fallback, ▁ for blanks."""
    base = trained(normalizers.Replace(" ", "▁"), pre_tokenizers.Split("▁", "merged_with_next"), 1200,
                   byte_level=False)
    data = json.loads(base.to_str())
    merges = [m for m in data["model"]["merges"]]
    tokens = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
    chars = sorted({c for m in merges for part in m for c in part} | set("▁abcdefghijklmnopqrstuvwxyz"))
    tokens += chars + [a + b for a, b in merges if len(a + b) > 1]
    vocab = {t: i for i, t in enumerate(dict.fromkeys(tokens))}
    data["model"].update(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>")
    data["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    data["pre_tokenizer"] = None
    data["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"}]}
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<s>", "</s>")])
    return tokenizer


def fused_unknown():
    """Unknown characters without byte fallback, Metaspace, merges written as "a b"."""
    data = json.loads(sentencepiece().to_str())
    vocab = [t for t in data["model"]["vocab"] if not t.startswith("<0x")]
    data["model"].update(
        vocab={t: i for i, t in enumerate(vocab)}, byte_fallback=False,
        merges=[" ".join(m) for m in data["model"]["merges"]])
    data["normalizer"] = {"type": "Strip", "strip_left": True, "strip_right": True}
    data["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first",
                             "split": True}
    data["decoder"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": True}
    data["added_tokens"] = [t for t in data["added_tokens"] if not t["content"].startswith("<0x")]
    for t in data["added_tokens"]:
        t["id"] = vocab.index(t["content"])
    return Tokenizer.from_str(json.dumps(data)), json.dumps(data, ensure_ascii=False)


def behaviors():
    """Each behavior of Split, inverted and not, behind one another."""
    P = pre_tokenizers
    return trained(
        normalizers.Sequence([normalizers.NFD(), normalizers.Strip(left=False, right=True)]),
        P.Sequence([
            P.Split("e", "merged_with_previous"), P.Split(Regex("[aio]"), "merged_with_next"),
            P.Split(Regex(r"\d+"), "contiguous"), P.Split(Regex(r"[\w ]+"), "contiguous", invert=True),
            P.Split(Regex("u+"), "removed"), P.Split(Regex(r"[^\r\n\t]+"), "removed", invert=True),
            P.Split(Regex(r"\s(?=\S)"), "merged_with_next", invert=True),
            P.Split(Regex(r"x*"), "isolated"), P.Split(Regex(r"\b"), "isolated"),
            P.Split(Regex(r"(?m:n.t)|^m|d$|\h{,2}q"), "merged_with_previous", invert=True),
            P.ByteLevel(add_prefix_space=False, use_regex=False), P.WhitespaceSplit()]),
        600)


def write(name, tokenizer, count, seed, tokens, text=None):
    tokens = tokens + [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    (HERE / f"{name}.tokenizer.json").write_text(
        text or json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":")))
    strings = Strings(seed, tokens)
    out = bytearray()
    for i in range(count):
        data = strings.bytes()
        if i < len(NEW):  # each of them between marks that it would be exchanged with
            data = ("a\u0301" + chr(NEW[i]) + "\u0334\u0323").encode()
        ids = tokenizer.encode(data.decode("utf-8", errors="replace"), add_special_tokens=False).ids
        out += struct.pack("<H", len(data)) + data
        out += struct.pack(f"<H{len(ids)}H", len(ids), *ids)
    (HERE / f"{name}.strings.bin").write_bytes(out)


def write_decoded(name, tokenizer, count, seed, tokens, drunk=0.0):
    tokens = tokens + [t.content for t in tokenizer.get_added_tokens_decoder().values()]
    strings = Strings(seed, tokens)
    rng = random.Random(seed)
    out = bytearray()
    for _ in range(count):
        ids = tokenizer.encode(strings.text(), add_special_tokens=False).ids
        if rng.random() < drunk:  # answers of a model that is drunk
            ids = [rng.randrange(tokenizer.get_vocab_size()) for _ in range(rng.randrange(1, 12))]
        data = tokenizer.decode(ids, skip_special_tokens=True).encode()
        out += struct.pack(f"<H{len(ids)}H", len(ids), *ids)
        out += struct.pack("<H", len(data)) + data
    (HERE / f"{name}.decoded.bin").write_bytes(out)


def main():
    tokens = ["<|im_start|>user\n", "<think>", "number", "Word", "word", "ÜBER", "fin", "FIN", "<n>"]
    tokenizer = qwen()
    write("qwen", tokenizer, 6500, 11, tokens)
    write_decoded("qwen", tokenizer, 600, 12, tokens, drunk=0.3)
    write("llama3", llama3(), 1200, 13, tokens)
    write("variants", variants(), 2000, 15, tokens)
    tokenizer, text = fused_unknown()
    write("fused_unknown", tokenizer, 500, 19, tokens, text)
    write("behaviors", behaviors(), 1000, 21, tokens)
    size = sum(p.stat().st_size for p in HERE.iterdir() if p.suffix in (".json", ".bin"))
    print(f"{size} bytes in all", file=sys.stderr)


if __name__ == "__main__":
    main()
