"""A conversation as the text the model sees, cut into what it is given and what it must say.

`pieces` is the chat template in Python, for speed; `check` holds it to the template itself.
"""

import json
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATE = (Path(__file__).parent / "chat_template.jinja").read_text().rstrip("\n")
END = "<|im_end|>"
_SHOWN = {"string": '"string"', "integer": "integer", "number": "number", "boolean": "boolean"}  # types, where a call has values


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _environment() -> jinja2.Environment:
    """Jinja as chat templates expect it: no HTML escaping, key order kept."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = _to_json
    return environment


_COMPILED = _environment().from_string(TEMPLATE)


def with_template(messages: list[dict], tools: list[dict], add_generation_prompt: bool = False) -> str:
    return _COMPILED.render(messages=messages, tools=tools or None, add_generation_prompt=add_generation_prompt)


def _assistant_text(message: dict) -> str:
    lines = [message["content"]] if message["content"] else []
    for call in message.get("tool_calls", ()):
        function = call["function"]
        lines.append(f'<tool_call>\n{{"name": "{function["name"]}", "arguments": {_to_json(function["arguments"])}}}\n</tool_call>')
    return "\n".join(lines)


def _as_call(function: dict) -> str:
    arguments = ", ".join(f'{_to_json(name)}: {_SHOWN.get(schema["type"]) or _to_json(schema)}'
                          for name, schema in function["parameters"]["properties"].items())
    described = function["description"] + " " if "description" in function else ""
    return f'{described}{{"name": "{function["name"]}", "arguments": {{{arguments}}}}}'


def pieces(messages: list[dict], tools: list[dict]) -> list[tuple[str, bool]]:
    """(text, whether the loss counts it) in order; their concatenation is the template's text."""
    out: list[tuple[str, bool]] = []
    given = ""
    if tools:
        given += "<|im_start|>system\n"
        if messages[0]["role"] == "system":
            given += messages[0]["content"] + "\n\n"
        given += "# Tools\n\nYou may call these functions:\n<tools>"
        given += "".join("\n" + _as_call(tool["function"]) for tool in tools)
        given += ('\n</tools>\n\nTo call one, answer with:\n<tool_call>\n{"name": <name>, "arguments": <arguments>}\n'
                  f"</tool_call>{END}\n")
    previous = None
    for i, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "tool":
            given += ("<|im_start|>user" if previous != "tool" else "") + f"\n<tool_response>\n{content}\n</tool_response>"
            if i + 1 == len(messages) or messages[i + 1]["role"] != "tool":
                given += END + "\n"
        elif role == "assistant":
            out += [(given + "<|im_start|>assistant\n", False), (_assistant_text(message) + END, True)]
            given = "\n"
        elif role == "user" or i > 0 or not tools:
            given += f"<|im_start|>{role}\n{content}{END}\n"
        previous = role
    out.append((given, False))
    return out


def check(messages: list[dict], tools: list[dict]):
    ours = "".join(text for text, _ in pieces(messages, tools))
    theirs = with_template(messages, tools)
    if ours != theirs:
        raise AssertionError(f"the renderer and the chat template differ:\n{ours!r}\n{theirs!r}")
