#!/usr/bin/env python3
"""Makes the goldens in kinds/: every kind of tokenizer, with 10,000 strings each.

Needs PyPI's `tokenizers`, `mistral-common` and `sentencepiece` (0.23.3, 1.13.1 and 0.2.3 made the
files that are committed). Run without arguments; the output is the same every time. With a kind
and a number, prints that string and what it is tokenized to.

  kinds.json     [{"name", "file", "patch"}]: a kind is its file, changed by the patch (RFC 7396)
  pieces.bin     records of: u8 length, bytes (may be broken UTF-8); string_bytes() says how
                 strings are made of them
  <name>.hashes  per string: u16 of the ids with special tokens, u16 of the text they are decoded to
                 (without them): each the CRC-32 of u32s or UTF-8, its halves combined by xor
"""

import base64
import collections
import io
import json
import pathlib
import random
import struct
import sys
import tempfile
import zlib

import sentencepiece
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import make_goldens as G

HERE = pathlib.Path(__file__).parent / "kinds"
STRINGS = 10_000

TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TOKENS = [
    "<s>", "</s>", "<unk>", "[INST]", "[/INST]", "[TOOL_CALLS]", "<SPECIAL_20>", "▁<PRE>", "▁", "▁▁",
    "<0x0A>", "<|begin_of_text|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>",
    "<tool_call>", "<｜begin▁of▁sentence｜>", "<｜User｜>", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "##s",
    "<bos>", "<start_of_turn>", "don't", " do not", "a . b , c ! d ? e ' f", "we 're n't",
]
MASK = (1 << 64) - 1


class SplitMix64:
    """Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return (z ^ (z >> 31)) % n


def character(c):
    return chr(c ^ 0x8000 if 0xD800 <= c <= 0xDFFF else c).encode()


def string_bytes(pieces, index):
    """The test makes the same."""
    r = SplitMix64(index)
    out = b""
    for _ in range(1 + r.below(5)):
        how = r.below(8)
        if how == 0:  # any characters
            for _ in range(1 + r.below(3)):
                limit = 0x3000 if r.below(2) == 0 else 0x30000
                out += character(r.below(limit))
        elif how == 1:  # of one script
            base = r.below(0x20000)
            for _ in range(1 + r.below(6)):
                out += character(base + r.below(48))
        else:
            out += pieces[r.below(len(pieces))]
    return out


def make_pieces():
    strings = G.Strings(31, TOKENS)
    pieces = TOKENS[:]
    while len(pieces) < 1500:
        piece = strings.piece()
        if len(piece.encode()) < 100:
            pieces.append(piece)
    pieces += ["a" * 250, " " * 250, "\n" * 100, "=" * 120, "\u0301" * 60, "👍" * 40, "ab" * 120]
    pieces = [p.encode() for p in pieces]
    return pieces + [b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xe2\x82", b"\xf0\x9f"]


def compact(data):
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


# --- The files -------------------------------------------------------------------------------


def bytes_tokenizer():
    """Byte-level BPE; some tokens that no merge makes, for ignore_merges."""
    data = json.loads(G.trained(None, G.byte_level_split(G.LLAMA3), 1000).to_str())
    merges = data["model"]["merges"]
    dropped = set(random.Random(3).sample(range(len(merges)), 40))
    data["model"]["merges"] = [m for i, m in enumerate(merges) if i not in dropped]
    return data


def spm_tokenizer():
    """Llama 2's building blocks."""
    data = json.loads(G.sentencepiece().to_str())
    data["added_tokens"] = []
    return data


def wordpiece_tokenizer():
    """Frequent characters, words and ends of words. (The trainer's result differs run by run.)"""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    counts = collections.Counter()
    for line in G.corpus(7, 1500, all_scripts=True):
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(tokenizer.normalizer.normalize_str(line)):
            counts[word] += 8
            counts.update(word)
            counts.update("##" + word[i:] for i in range(1, len(word)))
            counts.update("##" + c for c in word[1:])
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += sorted(counts, key=lambda t: (-counts[t], t))[:1000]
    data = json.loads(tokenizer.to_str())
    data["model"]["vocab"] = {t: i for i, t in enumerate(tokens)}
    return data


def tekken_file():
    merges = json.loads(G.trained(None, G.byte_level_split(TEKKEN), 700).to_str())["model"]["merges"]
    byte_of = {c: bytes([b]) for b, c in byte_level_alphabet().items()}
    tokens = [bytes([b]) for b in range(256)]
    tokens += dict.fromkeys(b"".join(byte_of[c] for c in a + b) for a, b in merges)
    vocab = [{"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": None}
             for i, t in enumerate(tokens)]
    return {
        "config": {"pattern": TEKKEN, "num_vocab_tokens": len(vocab),
                   # The last twenty are cut away.
                   "default_vocab_size": len(vocab) - 20 + 1000, "default_num_special_tokens": 1000,
                   "version": "v3"},
        "vocab": vocab}


def byte_level_alphabet():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {b: chr(b) for b in printable}
    for i, b in enumerate(b for b in range(256) if b not in alphabet):
        alphabet[b] = chr(256 + i)
    return alphabet


def sentencepiece_model():
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=G.corpus(7, 1500, all_scripts=False), model_writer=out, vocab_size=900,
        model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True,
        num_threads=1, minloglevel=2)
    return out.getvalue()


# --- The kinds: the files as real models have them -------------------------------------------


def added(tokens, first_id, special=True, **flags):
    return [{"id": first_id + i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": special, **flags} for i, t in enumerate(tokens)]


def template(before=(), after=()):
    def piece(token):
        return {"SpecialToken": {"id": token[0], "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [*map(piece, before), {"Sequence": {"id": "A", "type_id": 0}}, *map(piece, after)],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in (*before, *after)}}


def split(pattern, behavior="Isolated"):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}


BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
BYTE_DECODER = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}


def sequence(key, *members):
    return {"type": "Sequence", key: list(members)}


def metaspace(scheme, split):
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}


REPLACE_BLANKS = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
LLAMA2_DECODERS = [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
    {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]


def kinds(spm_size, bytes_size):
    """(name, file, patch)"""
    end, b = spm_size, bytes_size
    s = ("<s>", 1)
    basic = added(["<unk>", "<s>", "</s>"], 0)
    spm = {"added_tokens": basic, "post_processor": template([s]),
           "decoder": sequence("decoders", *LLAMA2_DECODERS)}
    yield "llama2", "spm.json", {
        **spm, "normalizer": sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, REPLACE_BLANKS)}
    yield "codellama", "spm.json", {
        **spm, "normalizer": sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, REPLACE_BLANKS),
        "added_tokens": basic + added(["▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>"], end)}
    yield "mistral_v03", "spm.json", {
        **spm, "normalizer": None, "pre_tokenizer": metaspace("first", False),
        "added_tokens": basic + added(["[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]"], end)}
    yield "gemma", "spm.json", {
        **spm, "normalizer": REPLACE_BLANKS, "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
        "added_tokens": basic + added(["<start_of_turn>", "<end_of_turn>"], end),
        "decoder": sequence("decoders", *LLAMA2_DECODERS[:3])}
    yield "metaspace_always", "spm.json", {
        **spm, "normalizer": None, "pre_tokenizer": metaspace("always", True),
        "decoder": metaspace("always", True), "post_processor": template((), [("</s>", 2)])}
    yield "metaspace_never", "spm.json", {
        **spm, "normalizer": None, "pre_tokenizer": metaspace("never", True),
        "decoder": metaspace("never", True), "post_processor": None}
    yield "llama3", "bytes.json", {
        "model": {"ignore_merges": True},
        "pre_tokenizer": sequence("pretokenizers", split(G.LLAMA3), BYTES), "decoder": BYTE_DECODER,
        "added_tokens": added(["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                               "<|end_header_id|>", "<|eot_id|>"], b),
        "post_processor": sequence("processors", BYTE_DECODER, template([("<|begin_of_text|>", b)]))}
    yield "qwen3", "bytes.json", {
        "normalizer": {"type": "NFC"}, "decoder": BYTE_DECODER, "post_processor": BYTE_DECODER,
        "pre_tokenizer": sequence("pretokenizers", split(G.QWEN), BYTES),
        "added_tokens": added(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], b) + added(
            ["<tool_call>", "</tool_call>", "<think>", "</think>"], b + 3, special=False)}
    yield "nemo", "bytes.json", {
        "model": {"ignore_merges": True}, "decoder": BYTE_DECODER,
        "pre_tokenizer": sequence("pretokenizers", split(TEKKEN), BYTES),
        "added_tokens": added(["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "<SPECIAL_20>"], b),
        "post_processor": template([("<s>", b + 1)])}
    yield "deepseek", "bytes.json", {
        "normalizer": sequence("normalizers"), "decoder": BYTE_DECODER,
        "pre_tokenizer": sequence(
            "pretokenizers", split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"), split(G.DEEPSEEK), BYTES),
        "added_tokens": added(["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"], b)
        + added(["<｜User｜>", "<think>"], b + 2, special=False),
        "post_processor": template([("<｜begin▁of▁sentence｜>", b)])}
    yield "o200k", "bytes.json", {
        "model": {"ignore_merges": True}, "decoder": BYTE_DECODER,
        "pre_tokenizer": sequence("pretokenizers", split(G.O200K, "Removed") | {"invert": True}, BYTES),
        "added_tokens": added(["<|endoftext|>"], b)}
    yield "smollm", "bytes.json", {
        "decoder": BYTE_DECODER,
        "pre_tokenizer": sequence("pretokenizers", {"type": "Digits", "individual_digits": True},
                                  {**BYTES, "use_regex": True}),
        "added_tokens": added(["<|im_start|>", "<|im_end|>"], b)}
    yield "roberta", "bytes.json", {
        "pre_tokenizer": {**BYTES, "use_regex": True, "add_prefix_space": True}, "decoder": BYTE_DECODER,
        "added_tokens": added(["<s>", "</s>"], b) + added(["<mask>"], b + 2, lstrip=True),
        "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", b + 1], "cls": ["<s>", b],
                           "trim_offsets": True, "add_prefix_space": True}}
    cls, sep = ("[CLS]", 2), ("[SEP]", 3)
    bert = added(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], 0)
    yield "minilm", "wordpiece.json", {
        "added_tokens": bert, "post_processor": template([cls], [sep]),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}
    yield "bert_cased", "wordpiece.json", {
        "model": {"max_input_chars_per_word": 20},
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": False,
                       "strip_accents": True, "lowercase": False},
        "added_tokens": bert, "decoder": None,
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}}
    yield "tekken_v3", "tekken.json", {}
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[ARGS]", "[THINK]", "[/THINK]"]
    yield "tekken_v13", "tekken.json", {
        "config": {"version": "v13", "default_vocab_size": 800, "default_num_special_tokens": 200},
        "special_tokens": [{"rank": i, "token_str": t, "is_control": i != 6} for i, t in enumerate(names)]}
    yield "sentencepiece", "spm.model", {}


def patched(target, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = patched(out.get(key), value)
    return out


def reference(file, patch):
    """(text to ids, ids to text)"""
    if file == "spm.model":
        processor = sentencepiece.SentencePieceProcessor(model_proto=(HERE / file).read_bytes())
        return lambda text: processor.encode(text, add_bos=True), processor.decode
    data = patched(json.loads((HERE / file).read_text()), patch)
    if file == "tekken.json":
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / file
            path.write_text(compact(data))
            tekken = Tekkenizer.from_file(path)
        return lambda text: tekken.encode(text, bos=True, eos=False), tekken.decode
    for key in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        data.setdefault(key, None)
    tokenizer = Tokenizer.from_str(compact(data))
    return lambda text: tokenizer.encode(text).ids, tokenizer.decode


def hash16(data):
    crc = zlib.crc32(data)
    return crc >> 16 ^ crc & 0xFFFF


def main():
    HERE.mkdir(exist_ok=True)
    pieces = make_pieces()
    if len(sys.argv) == 3:
        kind = next(k for k in json.loads((HERE / "kinds.json").read_text()) if k["name"] == sys.argv[1])
        encode, decode = reference(kind["file"], kind["patch"])
        text = string_bytes(pieces, int(sys.argv[2])).decode(errors="replace")
        print(repr(text), encode(text), repr(decode(encode(text))), sep="\n")
        return
    (HERE / "pieces.bin").write_bytes(b"".join(bytes([len(p)]) + p for p in pieces))
    spm, byte_level = spm_tokenizer(), bytes_tokenizer()
    (HERE / "spm.json").write_text(compact(spm))
    (HERE / "bytes.json").write_text(compact(byte_level))
    (HERE / "wordpiece.json").write_text(compact(wordpiece_tokenizer()))
    (HERE / "tekken.json").write_text(compact(tekken_file()))
    (HERE / "spm.model").write_bytes(sentencepiece_model())
    listed = [{"name": n, "file": f, "patch": p} for n, f, p in
              kinds(len(spm["model"]["vocab"]), len(byte_level["model"]["vocab"]))]
    (HERE / "kinds.json").write_text(json.dumps(listed, ensure_ascii=False, indent=1))
    texts = [string_bytes(pieces, i).decode(errors="replace") for i in range(STRINGS)]
    for kind in listed:
        encode, decode = reference(kind["file"], kind["patch"])
        out = bytearray()
        for text in texts:
            ids = encode(text)
            out += struct.pack("<HH", hash16(struct.pack(f"<{len(ids)}I", *ids)),
                               hash16(decode(ids).encode()))
        (HERE / f"{kind['name']}.hashes").write_bytes(out)
    size = sum(p.stat().st_size for p in HERE.iterdir())
    print(f"{size} bytes in all", file=sys.stderr)


if __name__ == "__main__":
    main()
