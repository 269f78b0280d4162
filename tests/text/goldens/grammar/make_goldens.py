#!/usr/bin/env python3
"""Makes the goldens beside it: schemas with instances and what Python's jsonschema says of them, and
patterns with what Python's re says.

    pip install jsonschema==4.26.0 rfc3339-validator
    python3 make_goldens.py                       writes schemas.jsonl and patterns.jsonl
    python3 make_goldens.py --suite FOLDER FILE   the JSON-Schema-Test-Suite's drafts 7 and 2020-12
                                                  as a file of the same form, which is not kept here:
                                                  PERDURE_SCHEMA_SUITE=FILE text_tests
                                                  --gtest_filter=GrammarGoldens*

A line of schemas.jsonl: {"schema", "instances": [[text, valid, canonical], …]}. Canonical are those
that follow the schema's order and say nothing that it does not declare: a grammar must accept them if
they are valid. Whatever it accepts must be valid.
"""

import copy
import json
import pathlib
import random
import re
import sys

import jsonschema

HERE = pathlib.Path(__file__).parent
CHECKER = jsonschema.Draft202012Validator.FORMAT_CHECKER


def is_valid(schema, instance):
    old = isinstance(schema, dict) and "draft-07" in schema.get("$schema", "")
    cls = jsonschema.Draft7Validator if old else jsonschema.Draft202012Validator
    return cls(schema, format_checker=CHECKER).is_valid(instance)


# --- Schemas as people write them -----------------------------------------------------------------

WRITTEN = [
    {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
     "required": ["name", "age"], "additionalProperties": False},
    {"type": "object", "properties": {"location": {"type": "string", "description": "City"},
     "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}}, "required": ["location"]},
    {"type": "object", "properties": {"steps": {"type": "array", "items": {"type": "object", "properties": {
        "explanation": {"type": "string"}, "output": {"type": "string"}}, "required": ["explanation", "output"],
        "additionalProperties": False}}, "final_answer": {"type": "string"}},
     "required": ["steps", "final_answer"], "additionalProperties": False},
    {"$defs": {"node": {"type": "object", "properties": {"value": {"type": "number"}, "next": {"anyOf": [
        {"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["value", "next"],
        "additionalProperties": False}}, "$ref": "#/$defs/node"},
    {"type": "object", "properties": {"item": {"anyOf": [
        {"type": "object", "properties": {"kind": {"const": "user"}, "id": {"type": "integer"}}, "required": ["kind", "id"]},
        {"type": "object", "properties": {"kind": {"const": "address"}, "street": {"type": "string"}}, "required": ["kind", "street"]}]}},
     "required": ["item"]},
    {"oneOf": [{"type": "object", "properties": {"t": {"const": "a"}, "v": {"type": "integer"}}, "required": ["t"]},
               {"type": "object", "properties": {"t": {"enum": ["b", "c"]}, "v": {"type": "string"}}, "required": ["t", "v"]}]},
    {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2},
    {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "boolean"}, "maxItems": 3},
    {"type": "object", "additionalProperties": {"type": "integer"}, "minProperties": 1},
    {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "integer"}},
    {"type": "object", "patternProperties": {"^x-": {"type": "string"}}, "additionalProperties": False},
    {"type": "object", "patternProperties": {"^[a-z]+$": {"type": "integer"}, "^[0-9]+$": {"type": "string"}},
     "additionalProperties": {"type": "null"}},
    {"type": "object", "propertyNames": {"pattern": "^[a-z]{1,3}$"}, "additionalProperties": {"type": "boolean"}},
    {"type": ["string", "null"], "minLength": 1, "maxLength": 4},
    {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,5}$"},
    {"type": "string", "pattern": "colou?r"},
    {"type": "string", "pattern": "^(foo|bar)+$", "maxLength": 9},
    {"type": "string", "pattern": "^\\s*\\S+\\s*$", "maxLength": 6},
    {"type": "string", "format": "date"}, {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "ipv6"}, {"type": "string", "format": "uuid"},
    {"type": "string", "format": "date-time"}, {"type": "string", "format": "email"},
    {"type": "string", "enum": ["", "a\"b", "new\nline", "ü", "\u0001", "\\"]},
    {"enum": [1, 1.5, "1", None, True, [1, 2], {"a": 1}]},
    {"const": {"a": [1, {"b": None}]}},
    {"type": "integer", "minimum": -10, "maximum": 250}, {"type": "integer", "exclusiveMinimum": -1, "exclusiveMaximum": 11},
    {"type": "number", "minimum": 0, "maximum": 1}, {"type": "number", "exclusiveMinimum": 0.1, "maximum": 2.75},
    {"type": "number", "maximum": -0.5}, {"type": "integer", "multipleOf": 3, "minimum": 0},
    {"type": "number", "multipleOf": 0.5}, {"type": "integer", "minimum": 99, "maximum": 1001},
    {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
               {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]}]},
    {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}, "c": {"type": "integer"}},
     "anyOf": [{"required": ["a"]}, {"required": ["b", "c"]}]},
    {"type": "object", "properties": {"a": {"type": "integer", "minimum": 2}}, "allOf": [
        {"properties": {"a": {"maximum": 5}}, "required": ["a"]}]},
    {"items": [{"type": "integer"}, {"type": "string"}], "additionalItems": {"type": "null"}, "type": "array",
     "$schema": "http://json-schema.org/draft-07/schema#"},
    {"definitions": {"s": {"type": "string", "maxLength": 3}}, "type": "array", "items": {"$ref": "#/definitions/s"}},
    {"type": "object", "properties": {"tree": {"$ref": "#/$defs/t"}}, "$defs": {"t": {"type": "object",
     "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/t"}}},
     "required": ["v"], "additionalProperties": False}}},
    {"type": "object", "properties": {"a": False, "b": True}},
    {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": ["integer", "boolean"]}},
    {"type": "object", "required": ["x"], "maxProperties": 2, "additionalProperties": {"type": "integer"}},
    True, {},
    # Refused.
    {"not": {"type": "string"}}, {"type": "array", "uniqueItems": True}, {"type": "array", "contains": {"const": 1}},
    {"if": {"type": "string"}, "then": {"minLength": 1}}, {"oneOf": [{"type": "integer"}, {"type": "number"}]},
]

# --- Schemas at random ----------------------------------------------------------------------------

NAMES = ["a", "b", "id", "name", "a b", "ü", "\"q", "x-1"]


def random_schema(r, depth):
    kind = r.randrange(13 if depth > 0 else 8)
    if kind == 0:
        return {"type": r.choice(["null", "boolean"])}
    if kind in (1, 2):
        s = {"type": r.choice(["integer", "integer", "number"])}
        low = r.choice([-20, -3, 0, 1, 7, 0.5, -2.25])
        if r.random() < 0.5:
            s[r.choice(["minimum", "exclusiveMinimum"])] = low
        if r.random() < 0.5:
            s[r.choice(["maximum", "exclusiveMaximum"])] = low + r.choice([1, 2.5, 10, 99, 1000])
        if s["type"] == "integer" and r.random() < 0.2:
            s["multipleOf"] = r.choice([1, 2, 5, 7, 10])
        return s
    if kind in (3, 4):
        s = {"type": "string"}
        if r.random() < 0.4:
            s["minLength"] = r.randrange(4)
        if r.random() < 0.4:
            s["maxLength"] = s.get("minLength", 0) + r.randrange(6)
        if r.random() < 0.3:
            s["pattern"] = r.choice(["^[a-f]*$", "a", "^x", "z$", "^(ab|c)+$", "^.{2,3}$", "[0-9]"])
        return s
    if kind == 5:
        return {"enum": r.sample(["a", "b", "ab", 1, 2, -1, 0.5, None, True, False, [], {}], r.randint(1, 5))}
    if kind == 6:
        return {"const": r.choice(["x", 3, [1, "a"], {"k": "v"}, None])}
    if kind == 7:
        return {"type": r.sample(["null", "string", "integer", "boolean"], 2)}
    if kind == 8:
        s = {"type": "array", "items": random_schema(r, depth - 1)}
        if r.random() < 0.4:
            s["minItems"] = r.randrange(3)
        if r.random() < 0.4:
            s["maxItems"] = s.get("minItems", 0) + r.randrange(3)
        if r.random() < 0.2:
            s["prefixItems"] = [random_schema(r, depth - 1) for _ in range(r.randint(1, 2))]
        return s
    if kind == 9:
        return {r.choice(["anyOf", "anyOf", "oneOf"]): [random_schema(r, depth - 1) for _ in range(r.randint(1, 3))]}
    if kind == 10:
        return {"allOf": [random_schema(r, depth - 1) for _ in range(r.randint(1, 2))]}
    names = r.sample(NAMES, r.randint(1, 4))
    s = {"type": "object", "properties": {n: random_schema(r, depth - 1) for n in names}}
    s["required"] = [n for n in names if r.random() < 0.5]
    if r.random() < 0.15:
        s["required"].append("other")
    if r.random() < 0.5:
        s["additionalProperties"] = r.choice([False, False, True, {"type": "integer"}])
    if r.random() < 0.1:
        s["minProperties"] = r.randrange(3)
    if r.random() < 0.1:
        s["maxProperties"] = r.randint(1, 4)
    return s


# --- Instances ------------------------------------------------------------------------------------

STRINGS = ["", "a", "ab", "abc", "x", "xz", "z", "zz", "ü", "😀😀", "a\nb", "\"", "color", "foobar", "AB-123",
           "2024-02-29", "2023-02-29", "10.0.0.1", "::1", "a@b.co", "2024-01-01T10:00:00Z", "0", "abab", "ccc",
           "123e4567-e89b-12d3-a456-426614174000", "value", "b", "c", "user", "address"]
NUMBERS = [0, 1, -1, 2, 3, 5, 7, 10, 12, 42, 99, 100, 1000, -20, -3, 0.5, 0.25, 1.5, -2.25, 2.75, 0.1, 1e3, 11.5, -0.5]


def resolve(root, ref):
    at = root
    for part in ref[1:].split("/")[1:]:
        at = at[part.replace("~1", "/").replace("~0", "~")]
    return at


def instance(r, root, s, depth=0):
    """An instance that mostly fits, in the order of the schema; raises RecursionError when too deep."""
    if depth > 8:
        raise RecursionError
    if not isinstance(s, dict) or not s:
        return r.choice([1, "a", None, True, [], {"k": 1}])
    if "$ref" in s:
        return instance(r, root, resolve(root, s["$ref"]), depth + 1)
    if "const" in s:
        return s["const"]
    if "enum" in s:
        return r.choice(s["enum"])
    for k in ("anyOf", "oneOf"):
        if k in s:
            merged = merge([{x: y for x, y in s.items() if x != k}, r.choice(s[k])])
            return instance(r, root, merged, depth + 1)
    if "allOf" in s:
        return instance(r, root, merge([{x: y for x, y in s.items() if x != "allOf"}] + s["allOf"]), depth + 1)
    t = s.get("type")
    if isinstance(t, list):
        t = r.choice(t)
    if t is None:
        t = "object" if "properties" in s or "required" in s else "array" if "items" in s else "string"
    if t == "null":
        return None
    if t == "boolean":
        return r.random() < 0.5
    if t in ("integer", "number"):
        pool = [n for n in NUMBERS if t == "number" or float(n).is_integer()]
        good = [n for n in pool if is_valid({k: v for k, v in s.items() if k != "type"}, n)]
        n = r.choice(good or pool)
        return int(n) if t == "integer" else n
    if t == "string":
        good = [x for x in STRINGS if is_valid({k: v for k, v in s.items() if k != "type"}, x)]
        return r.choice(good or STRINGS)
    if t == "array":
        prefix = s.get("prefixItems", s["items"] if isinstance(s.get("items"), list) else [])
        rest = s.get("additionalItems") if isinstance(s.get("items"), list) else s.get("items")
        low = s.get("minItems", 0)
        high = s.get("maxItems", max(low, len(prefix)) + 2)
        if rest is False or (prefix and rest is None):
            high = min(high, len(prefix))
        if depth > 4:
            high = low
        n = r.randint(low, max(low, high))
        return [instance(r, root, prefix[i] if i < len(prefix) else (True if rest is None else rest), depth + 1)
                for i in range(n)]
    out = {}
    required = s.get("required", [])
    for name, sub in s.get("properties", {}).items():
        if sub is not False and (name in required or (depth < 4 and r.random() < 0.5)):
            out[name] = instance(r, root, sub, depth + 1)
    more = s.get("additionalProperties", True)
    for name in required:
        if name not in out:
            out[name] = instance(r, root, more, depth + 1)
    if "additionalProperties" in s and more is not False and r.random() < 0.5:
        for name in r.sample(["zz", "k", "q"], r.randint(1, 2)):
            out.setdefault(name, instance(r, root, more, depth + 1))
    elif "additionalProperties" not in s and not s.get("properties") and not s.get("patternProperties"):
        out.setdefault("k", 1)
    return out


def merge(schemas):
    out = {}
    for s in schemas:
        if s is False:
            return {"enum": [None]}
        for k, v in (s if isinstance(s, dict) else {}).items():
            if k in ("properties",) and k in out:
                for name, sub in v.items():
                    out[k] = dict(out[k])
                    out[k][name] = merge([out[k][name], sub]) if name in out[k] else sub
            elif k == "required" and k in out:
                out[k] = out[k] + [n for n in v if n not in out[k]]
            elif k in ("minimum", "minLength", "minItems") and k in out:
                out[k] = max(out[k], v)
            elif k in ("maximum", "maxLength", "maxItems") and k in out:
                out[k] = min(out[k], v)
            elif k in ("anyOf", "oneOf", "allOf") and k in out:
                out[k] = [merge([a, b]) for a in out[k] for b in v] if k != "allOf" else out[k] + v
            else:
                out[k] = v
    return out


def mutate(r, value):
    value = copy.deepcopy(value)
    if isinstance(value, dict) and value and r.random() < 0.8:
        k = r.choice(list(value))
        what = r.randrange(5)
        if what == 0:
            del value[k]
        elif what == 1:
            value[r.choice(NAMES + ["x-a", "k", "1"])] = r.choice([1, "a", None])
        elif what == 2:
            value = dict(reversed(list(value.items())))
        else:
            value[k] = mutate(r, value[k])
        return value
    if isinstance(value, list) and value and r.random() < 0.8:
        i = r.randrange(len(value))
        what = r.randrange(3)
        if what == 0:
            del value[i]
        elif what == 1:
            value.insert(i, r.choice([1, "a", None, value[i]]))
        else:
            value[i] = mutate(r, value[i])
        return value
    return r.choice([r.choice(STRINGS), r.choice(NUMBERS), None, True, [], {}, {"a": 1}, [1]])


def texts_of(r, value, canonical):
    """As it may be written; canonical ones in all the usual ways, others in one."""
    forms = [dict(separators=(",", ":")), dict(), dict(indent=2)]
    if not isinstance(value, (dict, list)) or not value:
        forms = forms[:1]
    elif not canonical:
        forms = [r.choice(forms)]
    return [json.dumps(value, ensure_ascii=False, **form) for form in forms]


def row(r, schema, count):
    seen = {}
    for _ in range(count):
        try:
            value = instance(r, schema, schema)
        except RecursionError:
            continue
        for text in texts_of(r, value, True):
            seen[text] = [text, is_valid(schema, value), True]
        other = mutate(r, value)
        for text in texts_of(r, other, False):
            seen.setdefault(text, [text, is_valid(schema, other), False])
    return {"schema": schema, "instances": list(seen.values())}


PATTERNS = [
    "abc", "^abc$", "^a", "a$", "", "^$", "a|b", "^(a|b)$", "^a|b$", "a*", "^a*$", "^a+b?$", "^a{2}$", "^a{2,}$",
    "^a{1,2}$", "^[abc]$", "^[^abc]$", "^[a-c0-2]+$", "^[-a]$", "^[a-]$", "^[\\]a]$", "^\\d+$", "^\\D$", "^\\w+$",
    "^\\W$", "^\\s$", "^\\S$", "^.$", "^..$", "^(?:ab)+$", "^(?:ab|c)*$", "^a.c$", "^\\.$", "^\\\\$", "^\"$",
    "^\\n$", "^\\t?$", "^\\x41$", "^\\u0041$", "^[\\u0000-\\u001f]$", "^[\\d.]+$", "^[^\\d]$", "^[\\w-]+$",
    "^(a(b(c)?)?)?$", "^a*?b$", "^(a|ab)(c|bcd)$", "b|^a$", "^[äü]$", "^ä+$", "^[^a]$", "^😀$", "^[😀-😂]$",
    "^(a)$", "^a{0}$", "^(a{1,2}){2}$", "x{", "^x{a}$", "^a{0,2}$",
    "^\\/$", "^\\-$", "a.*b", "^(a|b|ab)*c$", "^(?:(?:a)(?:b))$", "^(.*)a$", "^[ -~]+$", "^[!-/:-@]+$",
]
PATTERN_TEXTS = ["", "a", "b", "c", "ab", "abc", "xabcx", "aa", "aaa", "aab", "abab", "abcd", "ac", "A", "0", "12", "1.5",
                 "-", "]", ".", "\\", "\"", "\n", "\t", " ", "\u0001", "/", "ä", "ää", "ü", "😀", "😁", "a\nb", "axc", "a\nc",
                 "x{", "x{a}", "_", "a-b", "!", "~", "bcd", "abbcd", "a b", "\u007f", "cab", "ba"]


def patterns():
    for p in PATTERNS:
        # ECMA-262: ASCII classes, $ at the very end, a dot that stops at all line ends.
        compiled = re.compile(p.replace("$", "\\Z"), re.ASCII)
        yield {"pattern": p, "texts": [[t, compiled.search(t) is not None] for t in PATTERN_TEXTS]}


def suite(folder, out):
    with open(out, "w") as f:
        for draft in ("draft7", "draft2020-12"):
            paths = sorted(pathlib.Path(folder, "tests", draft).rglob("*.json"))
            for path in paths:
                if "zeroTerminatedFloats" in path.name:
                    continue
                for group in json.loads(path.read_text()):
                    rows = [[json.dumps(t["data"], ensure_ascii=False), t["valid"], False] for t in group["tests"]]
                    text = json.dumps({"schema": group["schema"], "instances": rows}, ensure_ascii=False)
                    # Half of a surrogate pair cannot be written as UTF-8.
                    if all(not 0xD800 <= ord(c) <= 0xDFFF for c in text):
                        f.write(text + "\n")


def main():
    if len(sys.argv) == 4 and sys.argv[1] == "--suite":
        suite(sys.argv[2], sys.argv[3])
        return
    r = random.Random(20)
    with open(HERE / "schemas.jsonl", "w") as f:
        for schema in WRITTEN:
            f.write(json.dumps(row(r, schema, 6), ensure_ascii=False) + "\n")
        for _ in range(260):
            f.write(json.dumps(row(r, random_schema(r, 3), 3), ensure_ascii=False) + "\n")
    with open(HERE / "patterns.jsonl", "w") as f:
        for p in patterns():
            f.write(json.dumps(p, ensure_ascii=False) + "\n")


main()
