"""Writes families.json and expressions.json: what transformers' chat-template environment renders.

Needs the PyPI packages transformers and jinja2 (5.23 and 3.1.6 made the committed files). The tests
that read the results need neither. Run: python make_goldens.py

A result is a text, {"refused": message} where the template calls raise_exception, or null where it
fails otherwise. families.json holds each distinct result once: a case is [family, conversation,
number of its result].
"""

import copy
import datetime
import json
import pathlib

import jinja2
from transformers.utils.chat_template_utils import _compile_jinja_template

HERE = pathlib.Path(__file__).parent
UNIX_TIME = 1_753_900_000
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a place, now. ",
            "parameters": {
                "type": "object",
                "properties": {
                    "place": {"type": "string", "description": "A town, e.g. Zürich"},
                    "days": {"type": "integer", "description": "How many <days>", "default": 3},
                    "unit": {"type": "string", "enum": ["C", "F"], "description": "Scale"},
                },
                "required": ["place"],
            },
            "return": {"type": "object", "additionalProperties": {"type": "number"}, "description": "degrees"},
        },
    },
    {
        "type": "function",
        "function": {
            "name": "sum_up",
            "description": "Adds 'numbers' & \"strings\"",
            "parameters": {
                "type": "object",
                "properties": {
                    "values": {"type": "array", "items": {"type": "number"}, "description": "values"},
                    "exact": {"type": ["boolean", "null"], "description": "no rounding"},
                    "scale": {"type": "number", "description": "factor", "minimum": 1e-07, "maximum": 1e22, "x": 2.0},
                },
                "required": ["values", "exact"],
            },
        },
    },
]

USER = {"role": "user", "content": "What is 2+2?"}
CONVERSATIONS = {
    "one": {"messages": [USER]},
    "system_two_turns": {
        "messages": [
            {"role": "system", "content": " Be kind.\n"},
            {"role": "user", "content": "  Hello!  "},
            {"role": "assistant", "content": "Hi. "},
            {"role": "user", "content": "More\n\n"},
        ],
        "add_generation_prompt": True,
    },
    "unicode_and_special": {
        "messages": [
            {"role": "system", "content": "Ünïcödé 日本語 😀 /no_think"},
            {"role": "user", "content": "<|im_start|>system\nI am </s> <|user|> [INST] {{ 7*7 }} {% raw %}"},
            {"role": "assistant", "content": "\u2028\u00a0 ok\t\"quoted\" 'single' \\ back\u0001"},
            {"role": "user", "content": "<think>no</think> \u0130 ß ǆ"},
        ],
        "add_generation_prompt": True,
        "enable_thinking": False,
    },
    "empty": {
        "messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}],
    },
    "reasoning": {
        "messages": [
            {"role": "user", "content": "Think."},
            {"role": "assistant", "content": "<think>\nfirst thought\n</think>\n\nfirst answer"},
            {"role": "user", "content": "Again."},
            {"role": "assistant", "content": "second answer", "reasoning_content": "\nsecond thought\n"},
        ],
        "enable_thinking": True,
    },
    "tools_offered": {
        "messages": [{"role": "system", "content": "Sys."}, {"role": "user", "content": "Weather in Zürich?"}],
        "tools": TOOLS,
        "add_generation_prompt": True,
    },
    "tools_used": {
        "messages": [
            {"role": "user", "content": "Weather in Zürich and Bern?"},
            {
                "role": "assistant",
                "content": "<think>\nI need it\n</think>\n\nLooking.",
                "tool_calls": [
                    {"id": "abcdefghi", "type": "function",
                     "function": {"name": "get_weather", "arguments": {"place": "Zürich \"ZH\"", "days": 2}}},
                    {"id": "jklmnopqr", "type": "function",
                     "function": {"name": "sum_up", "arguments": {"values": [1, 2.5, -0.0, 1e16], "exact": None, "o": {"k": []}}}},
                ],
            },
            {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": "{\"t\": 21.5}"},
            {"role": "tool", "tool_call_id": "jklmnopqr", "name": "sum_up", "content": "3.5 </tool_response>"},
            {"role": "assistant", "content": "It is fine."},
            {"role": "user", "content": "Thanks!"},
        ],
        "tools": TOOLS,
        "add_generation_prompt": True,
    },
    "tool_result_last": {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None,
             "tool_calls": [{"id": "abcdefghi", "type": "function",
                             "function": {"name": "get_weather", "arguments": {"place": "Bern"}}}]},
            {"role": "tool", "tool_call_id": "abcdefghi", "content": "rain"},
        ],
        "tools": TOOLS[:1],
        "tools_in_user_message": False,
        "add_generation_prompt": True,
    },
    "content_parts": {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Parts."}]},
            {"role": "user", "content": [{"type": "text", "text": " What is this? "}, {"type": "image"}, {"type": "text", "text": "And this?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
        ],
        "add_generation_prompt": True,
    },
    "wrong_order": {
        "messages": [USER, USER, {"role": "assistant", "content": "4"}],
        "add_generation_prompt": True,
    },
    "documents": {
        "messages": [{"role": "user", "content": "Who?"}],
        "documents": [{"title": "A", "text": "Alice did."}, {"title": "B", "text": "Bob did\nnot."}],
        "controls": {"citations": True, "length": "long"},
        "reasoning_effort": "high",
        "thinking": True,
        "add_generation_prompt": True,
    },
    "developer_role": {
        "messages": [{"role": "developer", "content": "Be terse."}, USER, {"role": "assistant", "content": "4", "thinking": "2+2"}],
    },
    "no_messages": {"messages": []},
    "odd_roles": {
        "messages": [USER, {"role": "critic", "content": "Hm."}, {"role": "ipython", "content": "4"}, {"role": "function", "name": "f", "content": "5"}],
        "add_generation_prompt": True,
    },
    "parallel_calls_without_content": {
        "messages": [
            {"role": "system", "content": "Sys. /no_think"},
            {"role": "user", "name": "ann", "content": "Both?"},
            {"role": "assistant", "reasoning_content": "Two calls.", "thinking": "Two calls.",
             "tool_calls": [
                 {"id": "abcdefgh1", "type": "function", "function": {"name": "get_weather", "arguments": {"place": "A", "days": 1}}},
                 {"id": "abcdefgh2", "type": "function", "function": {"name": "sum_up", "arguments": {}}},
                 {"id": "abcdefgh3", "type": "function", "function": {"name": "sum_up", "arguments": {"values": [[1], {"x": "é"}], "exact": False}}}]},
            {"role": "tool", "tool_call_id": "abcdefgh1", "name": "get_weather", "content": "1"},
            {"role": "tool", "tool_call_id": "abcdefgh2", "name": "sum_up", "content": "2"},
            {"role": "tool", "tool_call_id": "abcdefgh3", "name": "sum_up", "content": "3"},
            {"role": "assistant", "content": "Done: <b>3</b>", "reasoning_content": "All there.", "thinking": "All there."},
        ],
        "tools": TOOLS,
    },
    "arguments_as_text": {
        "messages": [USER, {"role": "assistant", "content": "", "tool_calls": [
            {"id": "abcdefghi", "type": "function", "function": {"name": "sum_up", "arguments": "{\"values\": [1]}"}}]}],
        "tools": TOOLS[1:],
        "reasoning_effort": "none",
    },
}

EXPRESSION_CONTEXT = {
    "s": "Hello World", "u": "Straße ΑΣ ǆ 日本 😀", "empty": "", "ws": " \t x y \n", "lines": "a\r\nb\n\nc\u2028d",
    "i": 7, "neg": -3, "f": 2.5, "big": 18446744073709551615, "t": True, "n": None,
    "l": [3, 1, 2], "words": ["b", "A", "c", "a"], "nested": [[1, [2]], {"k": ("x" if False else "y")}],
    "d": {"b": 1, "a": "x", "items": 5, "C": None}, "people": [
        {"name": "Zoe", "age": 30, "address": {"city": "Ulm"}, "tags": ["x"]},
        {"name": "adam", "age": 25, "address": {"city": "bonn"}, "tags": []},
        {"name": "Bea", "age": 30},
    ],
    "quote": "it's \"q\" \\ \n\t\x01\x7f\u00a0é",
}


def fixed_strftime(format):
    return datetime.datetime.fromtimestamp(UNIX_TIME, datetime.timezone.utc).replace(tzinfo=None).strftime(format)


def compile_template(source):
    template = _compile_jinja_template(source)
    template.globals["strftime_now"] = fixed_strftime
    return template


def render(source, context):
    try:
        template = compile_template(source)
        # A copy: `a_list | indent` changes its operand in place.
        text = template.render(**copy.deepcopy(context))
        text.encode("utf-8")  # lone surrogates cannot leave Python either
        return text
    except Exception as error:  # noqa: BLE001: which other error it is does not matter
        return {"refused": str(error)} if type(error) is jinja2.exceptions.TemplateError else None


def families():
    cases, results, numbers = [], [], {}
    for path in sorted((HERE / "families").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        for name, conversation in CONVERSATIONS.items():
            context = {**TOKENS, **conversation}
            context.setdefault("add_generation_prompt", False)
            context.setdefault("tools", None)
            context.setdefault("documents", None)
            result = render(source, context)
            number = numbers.setdefault(json.dumps(result), len(results))
            if number == len(results):
                results.append(result)
            cases.append([path.stem, name, number])
    return {"unix_time": UNIX_TIME, "tokens": TOKENS, "conversations": CONVERSATIONS, "results": results, "cases": cases}


def expressions():
    cases = []
    for line in (HERE / "expressions.txt").read_text(encoding="utf-8").split("\n"):
        if not line or line.startswith("## "):
            continue
        # \n, \r and \t of the file's own: one case a line.
        source = line.replace("␤", "\n").replace("␍", "\r").replace("␉", "\t")
        cases.append([source, render(source, EXPRESSION_CONTEXT)])
    return {"unix_time": UNIX_TIME, "context": EXPRESSION_CONTEXT, "cases": cases}


def compact(value):
    """JSON with a line for each case and result."""
    def line(v):
        return json.dumps(v, ensure_ascii=False)

    parts = [line(k) + ": " + ("[\n" + ",\n".join(line(e) for e in v) + "\n]" if isinstance(v, list) else line(v)) for k, v in value.items()]
    return "{\n" + ",\n".join(parts) + "\n}"


def write(name, value):
    (HERE / name).write_text(compact(value) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write("families.json", families())
    write("expressions.json", expressions())
