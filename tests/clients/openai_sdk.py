#!/usr/bin/env python3
"""What the OpenAI Python SDK sees of a running Perdure server.

Usage: openai_sdk.py http://127.0.0.1:8000 [--api-key KEY] [--model NAME]

Checks shapes, statuses and error classes, never the words of an answer: it runs against any model.
Ends with 0 where everything held; otherwise the first difference is an exception's traceback.
"""

import argparse
import json
import sys

import openai

HELLO = [{"role": "user", "content": "Say hello."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def expect_error(kind, status, call, code=None, param=None):
    try:
        call()
    except kind as error:
        assert error.status_code == status, (error.status_code, error)
        assert error.request_id and error.request_id.startswith("req_"), error.request_id
        assert set(error.body) >= {"message", "type", "param", "code"}, error.body
        if code:
            assert error.code == code, error.body
        if param:
            assert error.param == param, error.body
        return
    raise AssertionError(f"no {kind.__name__} came")


def check_usage(usage):
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens >= 0
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    cached = usage.prompt_tokens_details.cached_tokens
    assert 0 <= cached <= usage.prompt_tokens


def check_timings(timings, usage):
    assert timings["queue_ms"] >= 0
    assert timings["prefill_ms"] >= 0
    assert timings["decode_ms"] >= 0
    cache = timings["cache"]
    assert cache["arena"] + cache["snapshot"] + cache["computed"] == usage.prompt_tokens, cache
    assert cache["arena"] + cache["snapshot"] == usage.prompt_tokens_details.cached_tokens


def check_models(client, model):
    names = [entry.id for entry in client.models.list()]
    assert names, "no models are listed"
    one = client.models.retrieve(model or names[0])
    assert one.id == (model or names[0])
    assert one.object == "model"
    expect_error(openai.NotFoundError, 404, lambda: client.models.retrieve("no/such/model"),
                 "model_not_found")
    return one.id


def check_chat(client, model):
    answer = client.chat.completions.create(model=model, messages=HELLO, max_tokens=8, seed=1)
    choice = answer.choices[0]
    assert answer.object == "chat.completion"
    assert answer.model == model
    assert choice.message.role == "assistant"
    assert isinstance(choice.message.content, str)
    assert choice.finish_reason in ("stop", "length")
    assert answer._request_id == "req_" + answer.id.removeprefix("chatcmpl-")
    assert answer.usage.completion_tokens <= 8
    check_usage(answer.usage)
    check_timings(answer.timings, answer.usage)

    again = client.chat.completions.create(model=model, messages=HELLO, max_tokens=8, seed=1)
    assert again.choices[0].message.content == choice.message.content, "same seed, other tokens"
    return choice.message.content


def check_chat_stream(client, model, expected):
    stream = client.chat.completions.create(model=model, messages=HELLO, max_tokens=8, seed=1,
                                            stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert len({(c.id, c.created, c.model) for c in chunks}) == 1
    first, last, usage = chunks[0], chunks[-2], chunks[-1]
    assert first.choices[0].delta.role == "assistant"
    assert first.choices[0].delta.content == ""
    assert last.choices[0].finish_reason in ("stop", "length")
    assert last.choices[0].delta.content is None
    assert all(c.usage is None for c in chunks[:-1])
    assert usage.choices == []
    check_usage(usage.usage)
    check_timings(usage.timings, usage.usage)
    text = "".join(c.choices[0].delta.content or "" for c in chunks[:-1])
    assert text == expected, (text, expected)

    # Without usage; and a reader that leaves early leaves the server well.
    with client.chat.completions.create(model=model, messages=HELLO, max_tokens=64,
                                        stream=True) as stream:
        for chunk in stream:
            assert chunk.usage is None
            break


def check_chat_forms(client, model):
    parts = [{"type": "text", "text": "Say"}, {"type": "text", "text": "hello."}]
    messages = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None,
         "tool_calls": [{"id": "call_1", "type": "function",
                         "function": {"name": "get_weather", "arguments": '{"city": "Bonn"}'}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    answer = client.chat.completions.create(
        model=model, messages=messages, tools=[TOOL], tool_choice="auto",
        max_completion_tokens=4, temperature=0, top_p=0.9, presence_penalty=0.1,
        frequency_penalty=0.1, stop=["\n\n\n"], logit_bias={"0": -100}, user="u",
        response_format={"type": "text"},
        extra_body={"top_k": 20, "min_p": 0.01, "repetition_penalty": 1.1, "ignore_eos": True,
                    "store": False, "cache": {"type": "kv"}})
    assert answer.usage.completion_tokens <= 4


def check_completions(client, model):
    answer = client.completions.create(model=model, prompt="Once upon", max_tokens=4, seed=1)
    assert answer.object == "text_completion"
    assert isinstance(answer.choices[0].text, str)
    check_usage(answer.usage)
    chunks = list(client.completions.create(model=model, prompt="Once upon", max_tokens=4, seed=1,
                                            stream=True))
    assert "".join(c.choices[0].text for c in chunks) == answer.choices[0].text
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    echoed = client.completions.create(model=model, prompt="Once upon", max_tokens=1, echo=True)
    assert echoed.choices[0].text.startswith("Once upon"), echoed.choices[0].text
    ids = client.completions.create(model=model, prompt=[1, 2, 3], max_tokens=1)
    assert ids.usage.prompt_tokens == 3


def check_token(token, top):
    assert isinstance(token.token, str)
    assert isinstance(token.logprob, float) and token.logprob <= 0
    assert token.bytes is None or bytes(token.bytes).decode(errors="replace") == token.token
    if top is not None:
        assert len(token.top_logprobs) == top
        for one in token.top_logprobs:
            check_token(one, None)


def check_logprobs(client, model):
    arguments = dict(model=model, messages=HELLO, max_tokens=8, seed=1, n=2, logprobs=True,
                     top_logprobs=3, extra_body={"ignore_eos": True})
    answer = client.chat.completions.create(**arguments)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.usage.completion_tokens == 16
    for choice in answer.choices:
        assert choice.logprobs.refusal is None
        assert len(choice.logprobs.content) == 8
        for token in choice.logprobs.content:
            check_token(token, 3)
        said = b"".join(bytes(token.bytes or []) for token in choice.logprobs.content)
        assert said.decode(errors="replace") == choice.message.content

    streamed = {0: [], 1: []}
    for chunk in client.chat.completions.create(**arguments, stream=True):
        for choice in chunk.choices:
            if choice.logprobs:
                streamed[choice.index] += choice.logprobs.content
    for choice in answer.choices:
        assert streamed[choice.index] == choice.logprobs.content

    plain = dict(model=model, prompt="Once upon", max_tokens=6, seed=1, n=2, logprobs=2,
                 extra_body={"ignore_eos": True})
    answer = client.completions.create(**plain)
    streamed = {0: [], 1: []}
    for chunk in client.completions.create(**plain, stream=True):
        for choice in chunk.choices:
            if choice.logprobs:
                streamed[choice.index] += choice.logprobs.token_logprobs
    for choice in answer.choices:
        logprobs = choice.logprobs
        assert len(logprobs.tokens) == len(logprobs.top_logprobs) == len(logprobs.text_offset) == 6
        assert logprobs.text_offset[0] == 0
        for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs,
                                       logprobs.top_logprobs):
            assert top[token] == logprob and 2 <= len(top) <= 3, top
        assert streamed[choice.index] == logprobs.token_logprobs


def check_errors(client, model):
    def chat(**more):
        arguments = {"model": model, "messages": HELLO, "max_tokens": 1, **more}
        return lambda: client.chat.completions.create(**arguments)

    bad = openai.BadRequestError
    expect_error(openai.NotFoundError, 404, chat(model="no-such-model"), "model_not_found", "model")
    expect_error(bad, 400, chat(temperature=9), "invalid_request", "temperature")
    expect_error(bad, 400, chat(n=129), "invalid_request", "n")
    expect_error(bad, 400, chat(messages=[]), "invalid_request", "messages")
    expect_error(bad, 400, chat(messages=[{"role": "user", "content": None}]), "invalid_request",
                 "messages[0].content")
    expect_error(bad, 400, chat(max_tokens=-1), "invalid_request", "max_tokens")
    expect_error(bad, 400, chat(max_tokens=2**63), "invalid_request", "max_tokens")
    expect_error(bad, 400, chat(top_logprobs=1), "invalid_request", "top_logprobs")
    expect_error(bad, 400, chat(stop=["a", "b", "c", "d", "e"]), "invalid_request", "stop")
    expect_error(bad, 400, chat(response_format={"type": "json_object"}), "unsupported")
    expect_error(bad, 400, chat(tools=[TOOL], tool_choice="required"), "unsupported", "tool_choice")
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    expect_error(bad, 400, chat(messages=[{"role": "user", "content": image}]), "unsupported")
    expect_error(bad, 400, lambda: client.completions.create(model=model, prompt=[-1]),
                 "invalid_request", "prompt")
    expect_error(openai.NotFoundError, 404,
                 lambda: client.embeddings.create(model=model, input="x"), "not_found")
    # The status of a stream is decided before its first byte.
    expect_error(bad, 400, chat(stream=True, temperature=-1), "invalid_request", "temperature")


def check_context_length(client, model):
    too_long = " a" * 600_000
    for stream in (False, True):
        expect_error(openai.BadRequestError, 400, lambda: client.completions.create(
            model=model, prompt=too_long, max_tokens=1, stream=stream), "context_length_exceeded")


def check_raw(client, model):
    raw = client.chat.completions.with_raw_response.create(model=model, messages=HELLO,
                                                           max_tokens=1)
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.headers["content-type"] == "application/json"
    json.loads(raw.text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--model")
    arguments = parser.parse_args()
    client = openai.OpenAI(base_url=arguments.url.rstrip("/") + "/v1",
                           api_key=arguments.api_key, max_retries=0, timeout=300)
    model = check_models(client, arguments.model)
    print("models: ok", flush=True)
    text = check_chat(client, model)
    print("chat: ok", flush=True)
    check_chat_stream(client, model, text)
    print("chat streams: ok", flush=True)
    for check in (check_chat_forms, check_completions, check_logprobs, check_errors,
                  check_context_length, check_raw):
        check(client, model)
        print(f"{check.__name__.removeprefix('check_')}: ok", flush=True)
    if arguments.api_key != "none":
        stranger = openai.OpenAI(base_url=arguments.url.rstrip("/") + "/v1", api_key="wrong",
                                 max_retries=0)
        expect_error(openai.AuthenticationError, 401, stranger.models.list, "unauthorized")
        print("wrong key: ok")
    print("all held")


if __name__ == "__main__":
    sys.exit(main())
