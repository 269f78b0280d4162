"""A conversation under construction: messages, offered tools, facts told, and the user's style."""

from random import Random

from . import words

_US_SPELLING = (("favourite", "favorite"), ("Favourite", "Favorite"), ("colour", "color"),
                ("Colour", "Color"))


class Dialogue:
    def __init__(self, rng: Random, held_out: bool = False):
        self.rng = rng
        self.held_out = held_out
        self.messages: list[dict] = []
        self.tools: list[dict] = []
        self.facts: dict[str, tuple] = {}  # what the user told: key -> (value, kind), see recall
        self.last_result: int | None = None
        self.lower = rng.random() < 0.35
        self.us = rng.random() < 0.5
        self.bare = rng.random() < 0.4  # leaves out the final full stop or question mark
        self.no_apostrophe = self.lower and rng.random() < 0.5

    def value(self, text: str) -> str:
        """`text` as this user types it; answers repeat it letter by letter."""
        return text.lower() if self.lower else text

    def pick(self, pool: words.Pool) -> str:
        return self.value(pool.pick(self.rng, self.held_out))

    def name(self) -> str:
        """A person's name: listed or made up."""
        if self.rng.random() < 0.5:
            return self.pick(words.NAMES)
        return self.value(words.made_up(self.rng, self.held_out).capitalize())

    def spelling(self, text: str) -> str:
        if self.us:
            for british, american in _US_SPELLING:
                text = text.replace(british, american)
        return text

    def typed(self, text: str) -> str:
        """The user's message in the user's style."""
        text = self.spelling(text)
        if self.lower:
            text = text.lower()
        if self.no_apostrophe:
            text = text.replace("'", "")
        if self.bare and text[-1] in ".?!":
            text = text[:-1]
        elif text[-1] == "?" and self.rng.random() < 0.03:
            text += "?"
        return text

    def system(self, text: str):
        self.messages.append({"role": "system", "content": text})

    def user(self, text: str):
        self.messages.append({"role": "user", "content": self.typed(text)})

    def assistant(self, text: str):
        self.messages.append({"role": "assistant", "content": self.spelling(text)})

    def say(self, user: str, assistant: str):
        self.user(user)
        self.assistant(assistant)

    def call(self, calls: list[tuple[str, dict]]):
        self.messages.append({"role": "assistant", "content": "", "tool_calls": [
            {"type": "function", "function": {"name": name, "arguments": arguments}}
            for name, arguments in calls]})

    def result(self, content: str):
        self.messages.append({"role": "tool", "content": content})
