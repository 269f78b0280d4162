"""Copying and spelling: repeat after me, say hello to somebody, spell a word."""

from . import words
from .dialogue import Dialogue

_NEUTRAL = "the a my your in on and with under near is was has likes sees wants two three very".split()


def phrase(d: Dialogue) -> str:
    """A few words that need not make sense, so that only copying helps."""
    rng = d.rng
    pools = (words.NAMES, words.ANIMALS, words.OBJECTS, words.PLACES, words.ADJECTIVES, words.COLOURS, words.FOODS)
    out = []
    for _ in range(rng.randint(1, 8)):
        draw = rng.random()
        out.append(rng.choice(_NEUTRAL) if draw < 0.35 else d.pick(rng.choice(pools)) if draw < 0.75
                   else d.value(words.made_up(rng, d.held_out)) if draw < 0.95 else words.digits(rng, d.held_out, 1, 4))
    return " ".join(out)


def repeat_turn(d: Dialogue):
    rng = d.rng
    text = phrase(d)
    shape = rng.choice(("Repeat after me: {t}", "Repeat: {t}", "Say {t}", "Please say: {t}", "Echo {t}", "Repeat this: {t}",
                        'Say "{t}"', "Please repeat: {t}", "Repeat the following: {t}", "Just say {t}", "Write {t}",
                        "Can you say {t}", "Reply with {t}", "Answer with only this: {t}", "Reply with exactly: {t}"))
    bare, d.bare = d.bare, False
    d.say(shape.format(t=text), text)
    d.bare = bare


def hello_to_turn(d: Dialogue):
    name = d.name()
    verb = d.rng.choice(("hello", "hi", "good morning", "goodbye", "happy birthday", "welcome"))
    d.say(d.rng.choice((f"Say {verb} to {name}.", f"Please say {verb} to {name}.", f"Can you say {verb} to {name}?",
                        f"Tell {name} {verb}.")), f"{verb.capitalize()}, {name}!")


def spell_turn(d: Dialogue):
    rng = d.rng
    pool = rng.choice((words.ANIMALS, words.COLOURS, words.NAMES, words.OBJECTS, words.PLACES, words.CITIES))
    word = pool.pick(rng, d.held_out)
    if " " in word:
        return
    d.say(rng.choice((f"Spell {word}.", f"How do you spell {word}?", f"Can you spell {word}?", f"Spell the word {word}.")),
          "-".join(word.upper()) + ".")
