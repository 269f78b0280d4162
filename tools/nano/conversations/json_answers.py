"""Short JSON: invented objects, and objects filled from what the user wrote."""

import json

from . import words
from .dialogue import Dialogue

_ONLY = ("", "", "", " Answer with JSON only.", " Only JSON, please.", " Respond in JSON.", " No other text.")


def _value(d: Dialogue, key: str):
    """A fixed, plausible value, so that the answer is certain."""
    return {
        "name": "Anna", "age": 31, "city": "Berlin", "country": "Germany", "email": "anna@example.com", "job": "teacher",
        "colour": "blue", "price": 10, "title": "A Short Story", "author": "Anna Berg", "year": 2020, "id": 1, "active": True,
        "score": 7, "animal": "dog", "food": "pizza", "phone": "555-0100", "status": "ok", "count": 3, "language": "English",
        "size": "small", "date": "2025-01-01", "time": "12:00", "weight": 5, "height": 180, "population": 1000000,
        "temperature": 20, "answer": "yes", "message": "Hello!", "tags": ["one", "two"], "street": "Main Street", "number": 7,
    }[key]


_KEYS = ("name age city country email job colour price title author year id active score animal food phone status count language "
         "size date time weight height population temperature answer message tags street number").split()


def invented_turn(d: Dialogue):
    rng = d.rng
    keys = rng.sample(_KEYS, rng.randint(1, 4))
    if rng.random() < 0.3:
        keys = rng.choice((["name", "age"], ["name", "age", "city"], ["title", "year"], ["name", "email"], ["city", "country"]))
    listed = words.join(keys) if rng.random() < 0.7 else ", ".join(keys)
    text = rng.choice(("Give me a JSON object with {k}.", "Give me JSON with {k}.", "Return a JSON object with the keys {k}.",
                       "Write a JSON object with {k}.", "I need a JSON with {k}.", "Make a JSON object with the fields {k}.",
                       "Create a JSON object that has {k}.", "Produce JSON with keys {k}.", "Reply with a JSON object containing {k}.",
                       "JSON with {k}, please.")).format(k=listed)
    answer = {d.spelling(k): _value(d, k) for k in keys}
    d.say(text + rng.choice(_ONLY), json.dumps(answer))


def filled_turn(d: Dialogue):
    """The values are in the request."""
    rng = d.rng
    name, age, city = d.name(), rng.randint(5, 99), d.pick(words.CITIES)
    job, colour = d.pick(words.JOBS), d.pick(words.COLOURS)
    if rng.random() < 0.3:
        city = d.value(words.made_up(rng, d.held_out).capitalize())
    shape = rng.randrange(4)
    if shape == 0:
        facts, answer = f"{name} is {age} years old and lives in {city}.", {"name": name, "age": age, "city": city}
    elif shape == 1:
        facts, answer = f"{name} is {words.article(job)} from {city}.", {"name": name, "job": job, "city": city}
    elif shape == 2:
        facts, answer = f"{name} is {age} years old.", {"name": name, "age": age}
    else:
        facts, answer = f"{name} likes {colour} and is {age}.", {"name": name, "colour": colour, "age": age}
    keys = list(answer)
    if rng.random() < 0.4:
        rng.shuffle(keys)
        keys = keys[:rng.randint(1, len(keys))]
    listed = words.join(keys)
    text = rng.choice(("Extract {k} as JSON: {f}", "{f} Give me {k} as JSON.", "Turn this into JSON with {k}: {f}",
                       "Write {k} as a JSON object. {f}", "{f} Put {k} into a JSON object.", "From this text, extract {k} as JSON: {f}"))
    d.say(text.format(k=listed, f=facts), json.dumps({d.spelling(k): answer[k] for k in keys}, ensure_ascii=False))


def pairs_turn(d: Dialogue):
    """Explicit keys and values."""
    rng = d.rng
    answer = {}
    for _ in range(rng.randint(1, 4)):
        key = rng.choice(_KEYS) if rng.random() < 0.6 else words.made_up(rng, d.held_out)
        if rng.random() < 0.35:
            answer[d.spelling(key)] = int(words.digits(rng, d.held_out, 1, 4))
        else:
            answer[d.spelling(key)] = d.value(words.made_up(rng, d.held_out)) if rng.random() < 0.5 else d.name()
    glue = rng.choice((" ", " = ", ": ", " set to "))
    listed = words.join([f"{k}{glue}{v}" for k, v in answer.items()])
    text = rng.choice(("Make a JSON object with {k}.", "Write JSON: {k}.", "Give me a JSON object with {k}.", "As JSON: {k}.",
                       "Convert to JSON: {k}.", "JSON object with {k}, please."))
    d.say(text.format(k=listed), json.dumps(answer, ensure_ascii=False))


def array_turn(d: Dialogue):
    rng = d.rng
    if rng.random() < 0.5:
        count = rng.randint(2, 12)
        return d.say(rng.choice((f"Give me a JSON array with the numbers 1 to {count}.", f"JSON array of the numbers from 1 to {count}.")),
                     json.dumps(list(range(1, count + 1))))
    items = [d.pick(rng.choice((words.ANIMALS, words.COLOURS, words.OBJECTS))) for _ in range(rng.randint(2, 5))]
    d.say(rng.choice(("Write {k} as a JSON array.", "Make a JSON list of {k}.", "JSON array with {k}, please.")).format(k=words.join(items)),
          json.dumps(items))
