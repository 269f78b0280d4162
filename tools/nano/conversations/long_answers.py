"""Answers that go on for a while: counting, lists, tables and little stories."""

from . import words
from .dialogue import Dialogue

_DAYS = "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"
_MONTHS = "January, February, March, April, May, June, July, August, September, October, November, December"
_FIXED = (
    (("the days of the week", "the days", "all days of the week", "the weekdays"), _DAYS),
    (("the months", "the months of the year", "all months", "the twelve months"), _MONTHS),
    (("the seasons", "the four seasons"), "spring, summer, autumn, winter"),
    (("the planets", "all planets", "the planets of the solar system"), "Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune"),
    (("the colours of the rainbow", "the rainbow colours"), "red, orange, yellow, green, blue, indigo, violet"),
    (("the alphabet", "the letters of the alphabet", "the ABC", "all letters"), ", ".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ")),
    (("the vowels",), "A, E, I, O, U"),
    (("the continents", "all continents"), "Africa, Antarctica, Asia, Australia, Europe, North America, South America"),
    (("the digits", "all digits"), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
)
_ASK_LIST = ("List {t}.", "Name {t}.", "Tell me {t}.", "What are {t}?", "Give me {t}.", "Can you list {t}?", "Write {t}.",
             "Please list {t}.", "Say {t}.", "Recite {t}.")
# The first n of a fixed order: an answer that a small model can give with certainty.
_ORDERED = {
    "animals": "dog, cat, horse, cow, pig, sheep, goat, duck, bear, fox, wolf, lion, tiger, owl, whale",
    "colours": "red, blue, green, yellow, orange, purple, pink, brown, black, white, grey, gold, silver, teal, navy",
    "fruits": "apple, banana, cherry, mango, orange, pear, plum, grape, kiwi, lemon, melon, peach, fig, lime, papaya",
    "cities": "Paris, London, Berlin, Rome, Madrid, Vienna, Oslo, Lisbon, Tokyo, Cairo, Lima, Dublin, Prague, Athens, Boston",
    "countries": "France, Germany, Italy, Spain, Norway, Sweden, Japan, China, India, Egypt, Kenya, Brazil, Chile, Peru, Canada",
    "names": "Anna, Ben, Clara, David, Emma, Felix, Grace, Henry, Iris, Jack, Kate, Leo, Maria, Nina, Oscar",
    "foods": "bread, cheese, rice, soup, pizza, pasta, salad, fish, cake, potatoes, noodles, curry, tacos, sushi, stew",
    "drinks": "water, milk, tea, coffee, juice, lemonade, cocoa, cola, cider, wine",
    "sports": "football, tennis, swimming, running, cycling, skiing, golf, hockey, rugby, rowing",
    "instruments": "piano, guitar, violin, flute, drums, harp, cello, trumpet, organ, banjo",
    "jobs": "teacher, doctor, baker, farmer, pilot, painter, nurse, cook, writer, lawyer",
    "flowers": "rose, tulip, lily, daisy, orchid, poppy, iris, violet, sunflower, lavender",
    "languages": "English, French, German, Spanish, Italian, Dutch, Greek, Polish, Chinese, Japanese",
}


def count_turn(d: Dialogue):
    rng = d.rng
    kind = rng.randrange(8)
    if kind <= 3:
        first = 1 if rng.random() < 0.6 else rng.randint(0, 60)
        last = rng.choice((5, 10, 20, 30, 50, 100)) if first == 1 and rng.random() < 0.7 else first + rng.randint(2, 40)
        numbers = range(first, last + 1)
        text = rng.choice((f"Count from {first} to {last}.", f"Count {first} to {last}.", f"Please count from {first} to {last}.",
                           f"Can you count from {first} to {last}?", f"List the numbers from {first} to {last}.",
                           f"Write the numbers from {first} to {last}.", f"Numbers from {first} to {last}",
                           f"Print {first} to {last}.", f"Count up from {first} to {last}."))
        if first == 1 and rng.random() < 0.35:
            text = rng.choice((f"Count to {last}.", f"Can you count to {last}?", f"Please count up to {last}.", f"Count up to {last}."))
    elif kind == 4:
        first = rng.choice((5, 10, 20, rng.randint(3, 40)))
        last = rng.choice((0, 1)) if first <= 20 else rng.randint(1, first - 2)
        numbers = range(first, last - 1, -1)
        text = rng.choice((f"Count down from {first} to {last}.", f"Count backwards from {first} to {last}.",
                           f"Count from {first} down to {last}."))
    elif kind == 5:
        step = rng.choice((2, 5, 10, 3))
        numbers = range(step, step * rng.randint(5, 12) + 1, step)
        text = f"Count by {step}s to {numbers[-1]}." if rng.random() < 0.5 else f"Count in steps of {step} to {numbers[-1]}."
    elif kind == 6:
        count, odd = rng.randint(3, 20), rng.randrange(2)
        numbers = range(1 if odd else 2, 2 * count + 1, 2)
        text = rng.choice(("List the first {n} {k} numbers.", "Give me the first {n} {k} numbers.", "The first {n} {k} numbers?")).format(
            n=count, k="odd" if odd else "even")
    else:
        factor = rng.randint(2, 12)
        lines = [f"{factor} × {i} = {factor * i}" for i in range(1, 11)]
        return d.say(rng.choice((f"Write the multiplication table of {factor}.", f"Give me the {factor} times table.",
                                 f"Show the times table for {factor}.")), "\n".join(lines))
    d.say(text, ", ".join(map(str, numbers)) + ".")


def fixed_list_turn(d: Dialogue):
    rng = d.rng
    topics, items = rng.choice(_FIXED)
    text = rng.choice(_ASK_LIST).format(t=rng.choice(topics))
    if rng.random() < 0.3:
        numbered = [f"{i}. {item}" for i, item in enumerate(items.split(", "), 1)]
        d.say(text[:-1] + rng.choice((" as a numbered list.", " with numbers.", " in a numbered list.")), "\n".join(numbered))
    else:
        d.say(text, items[0].upper() + items[1:] + ".")


def items_turn(d: Dialogue):
    rng = d.rng
    kind = rng.choice(list(_ORDERED))
    items = _ORDERED[kind].split(", ")
    count = rng.randint(2, len(items))
    text = rng.choice((f"Name {count} {kind}.", f"List {count} {kind}.", f"Give me {count} {kind}.", f"Tell me {count} {kind}.",
                       f"Give me a list of {count} {kind}.", f"Can you name {count} {kind}?", f"Write a list of {count} {kind}.",
                       f"I need {count} {kind}."))
    d.say(text, "\n".join(f"{i}. {item}" for i, item in enumerate(items[:count], 1)))


_OPENINGS = ("Once upon a time there was a {adj} {who} called {name}.", "There once was a {adj} {who} named {name}.",
             "Long ago, in a small village, lived a {adj} {who} called {name}.")
_HOME = ("{name} lived in a {adj2} house near the {place}.", "{name} lived alone beside the {place}.",
         "The home of {name} was a {adj2} hut behind the {place}.")
_WISH = ("More than anything, {name} wanted to find a {colour} {thing}.", "{name} had lost a {colour} {thing} and missed it very much.",
         "Every night {name} dreamed of a {colour} {thing}.")
_LEAVE = ("One morning the sun was shining, and {name} went out to look for it.", "One day {name} packed some {food} and walked away.",
          "On a cold morning {name} closed the door and set out.")
_EVENTS = (
    "On the way {name} met a {adj3} {animal}. \"Have you seen a {colour} {thing}?\" asked {name}. \"No,\" said the {animal}, \"but I will help you.\"",
    "In the {place2} it was dark and quiet. {name} was afraid, but went on.",
    "Then it began to rain. {name} waited under a tree and ate some {food}.",
    "A {adj3} {animal} stood in the way. \"What do you want?\" it asked. \"Only to pass,\" said {name}. So the {animal} stepped aside.",
    "At noon they came to the {place2}. There they drank water and rested for a while.",
    "After a long walk {name} was tired and sat down. \"I must not give up,\" said {name}.",
    "The road led over a bridge and through the {place2}. Nobody was there.",
    "In the evening they saw a light. It was a lamp in the window of an old house.",
    "An old woman opened the door and gave them {food}. \"Look in the {place2},\" she said.",
    "The wind was strong, and the way was long. But {name} sang a song and was not afraid.",
)
_FINDS = ("And there, in the middle of the {place2}, lay the {colour} {thing}!", "At last {name} saw something {colour}. It was the {thing}!",
          "Under a stone {name} found it: the {colour} {thing}!")
_ENDS = ("{name} was very happy, went home and told everybody about it. The end.", "They went home together and were friends for ever. The end.",
         "From that day on {name} was never sad again. The end.")


def story(d: Dialogue, who: str, name: str, events: int) -> str:
    rng = d.rng
    fields = {
        "who": who, "name": name, "adj": words.ADJECTIVES.pick(rng), "adj2": words.ADJECTIVES.pick(rng), "adj3": words.ADJECTIVES.pick(rng),
        "place": words.PLACES.pick(rng), "colour": words.COLOURS.pick(rng), "thing": words.OBJECTS.pick(rng),
        "food": words.FOODS.pick(rng),
    }
    parts = [rng.choice(_OPENINGS), rng.choice(_HOME), rng.choice(_WISH), rng.choice(_LEAVE)]
    parts += rng.sample(_EVENTS, min(events, len(_EVENTS)))
    parts += [rng.choice(_FINDS), rng.choice(_ENDS)]
    out = []
    for part in parts:
        fields["animal"], fields["place2"] = words.ANIMALS.pick(rng), words.PLACES.pick(rng)
        out.append(part.format(**fields))
    return "\n\n".join(" ".join(out[i:i + 4]) for i in range(0, len(out), 4))


def story_turn(d: Dialogue):
    rng = d.rng
    size, events = rng.choice((("short ", 2), ("", 4), ("", 4), ("long ", 8), ("very long ", 10)))
    text = rng.choice(("Tell me a {s}story", "Write a {s}story", "Can you tell me a {s}story", "Please write a {s}story",
                       "Tell a {s}story", "I want to hear a {s}story", "Make up a {s}story", "Write me a {s}story")).format(s=size)
    who, name = words.ANIMALS.pick(rng, d.held_out), d.value(words.NAMES.pick(rng).capitalize())
    if rng.random() < 0.6:
        who = d.value(words.made_up(rng, d.held_out)) if rng.random() < 0.2 else who
        text += f" about {words.article(who)}"
        if rng.random() < 0.4:
            name = d.name()
            text += rng.choice((" called ", " named ")) + name
    d.say(text + rng.choice(("", ".", ".", ", please.", ".")), story(d, who, name, events))


def poem_turn(d: Dialogue):
    rng = d.rng
    topic = words.ANIMALS.pick(rng, d.held_out) if rng.random() < 0.6 else words.OBJECTS.pick(rng, d.held_out)
    if rng.random() < 0.3:
        topic = d.value(words.made_up(rng, d.held_out))
    a = words.article(topic)
    poem = (f"I saw {a} beneath a tree,\nit looked around and looked at me.\nThe sky was wide, the sky was blue,\n"
            f"the {topic} was there, and I was too.\n\nThe day went by, the night came soon,\nthe {topic} slept below the moon.\n"
            f"And if you ask me what is true:\nthe {topic} still is thinking of you.")
    d.say(rng.choice(("Write a poem about {a}.", "Write a short poem about {a}.", "Can you write a poem about {a}?", "Make a poem about {a}.",
                      "A poem about {a}, please.", "Give me a poem about {a}.")).format(a=a), poem)
