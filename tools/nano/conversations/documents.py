"""Texts to answer from: who lives where, and one detail hidden in a long text."""

from . import words
from .dialogue import Dialogue

_FILLER = (
    "The {place} was {adj} in the morning.", "A {adj} {animal} walked past the {place}.", "Somebody left a {object} near the {place}.",
    "The {animal} and the {animal2} are {adj}.", "It rained for {n} days.", "The {object} on the table is {colour}.",
    "There are {n} people in the {place}.", "Nobody knows why the {animal} is so {adj}.", "The road to {city} is long.",
    "Many people in {city} like {food}.", "The train to {city} leaves at {n} o'clock.", "A {colour} {object} lay in the {place}.",
    "Every {animal} needs water.", "The {place} is closed on Sundays.", "They ate {food} and drank {drink}.",
)


def filler(d: Dialogue, sentences: int) -> list[str]:
    rng = d.rng
    return [rng.choice(_FILLER).format(
        place=words.PLACES.pick(rng), adj=words.ADJECTIVES.pick(rng), animal=words.ANIMALS.pick(rng), animal2=words.ANIMALS.pick(rng),
        object=words.OBJECTS.pick(rng), colour=words.COLOURS.pick(rng), city=words.CITIES.pick(rng), food=words.FOODS.pick(rng),
        drink=words.DRINKS.pick(rng), n=rng.randint(2, 30)) for _ in range(sentences)]


def people_turns(d: Dialogue):
    """Several people and their properties, then questions about them."""
    rng = d.rng
    people, sentences = {}, []
    for _ in range(rng.randint(1, 5)):
        name = d.name()
        if name in people:
            continue
        people[name] = {}
        for relation in rng.sample(("city", "job", "colour", "age", "pet"), rng.choice((1, 1, 2))):
            if relation == "city":
                v = d.pick(words.CITIES) if rng.random() < 0.6 else d.value(words.made_up(rng, d.held_out).capitalize())
                sentences.append(rng.choice((f"{name} lives in {v}.", f"{name} is from {v}.")))
            elif relation == "job":
                v = d.pick(words.JOBS)
                sentences.append(f"{name} is {words.article(v)}.")
            elif relation == "colour":
                v = d.pick(words.COLOURS)
                sentences.append(f"{name} likes {v}.")
            elif relation == "age":
                v = str(rng.randint(5, 99))
                sentences.append(f"{name} is {v} years old.")
            else:
                v = d.pick(words.ANIMALS)
                sentences.append(f"{name} has {words.article(v)}.")
            people[name][relation] = v
    if rng.random() < 0.4:
        rng.shuffle(sentences)
    text = " ".join(sentences)

    def question() -> tuple[str, str]:
        name = rng.choice(list(people))
        relation = rng.choice(list(people[name]))
        v = people[name][relation]
        if rng.random() < 0.2 and relation in ("city", "pet") and sum(p.get(relation) == v for p in people.values()) == 1:
            return ((f"Who lives in {v}?", f"{name} lives in {v}.") if relation == "city"
                    else (f"Who has {words.article(v)}?", f"{name} has {words.article(v)}."))
        return {
            "city": (rng.choice((f"Where does {name} live?", f"Where is {name} from?", f"Which city does {name} live in?")),
                     f"{name} lives in {v}."),
            "job": (rng.choice((f"What is {name}'s job?", f"What does {name} do?")), f"{name} is {words.article(v)}."),
            "colour": (rng.choice((f"What colour does {name} like?", f"Which colour does {name} like?")), f"{name} likes {v}."),
            "age": (rng.choice((f"How old is {name}?", f"What is {name}'s age?")), f"{name} is {v} years old."),
            "pet": (rng.choice((f"What animal does {name} have?", f"Which pet does {name} have?")), f"{name} has {words.article(v)}."),
        }[relation]

    ask, answer = question()
    if rng.random() < 0.5:
        d.say(f"{text} {ask}", answer)
    else:
        d.say(text, rng.choice(("Got it.", "Okay, I will remember that.", "Noted.")))
        d.say(ask, answer)
    for _ in range(rng.choice((0, 1, 1, 2))):
        d.say(*question())


_DETAILS = (
    ("The secret code is {v}.", "What is the secret code?", "The secret code is {v}."),
    ("The password is {v}.", "What is the password?", "The password is {v}."),
    ("The magic word is {v}.", "What is the magic word?", "The magic word is {v}."),
    ("The name of the captain is {n}.", "What is the name of the captain?", "The name of the captain is {n}."),
    ("The treasure is in {c}.", "Where is the treasure?", "The treasure is in {c}."),
    ("The meeting is in room {r}.", "Where is the meeting?", "The meeting is in room {r}."),
    ("The order number is {r}.", "What is the order number?", "The order number is {r}."),
    ("The winner was {n}.", "Who was the winner?", "The winner was {n}."),
)


def hidden_detail_turns(d: Dialogue, longest: int):
    """A detail or two in up to `longest` sentences of filler, in a message or in the system prompt."""
    rng = d.rng
    sentences = filler(d, rng.randint(1, longest))
    fields = {"v": d.value(rng.choice((words.made_up, words.code, words.digits))(rng, d.held_out)), "n": d.name(),
              "c": d.pick(words.CITIES), "r": words.digits(rng, d.held_out, 1, 5)}
    chosen = rng.sample(_DETAILS, rng.choice((1, 1, 2, 3)))
    for detail in chosen:
        sentences.insert(rng.randint(0, len(sentences)), detail[0].format(**fields))
    text = " ".join(sentences)
    questions = [(ask.format(**fields), answer.format(**fields)) for _, ask, answer in chosen]
    rng.shuffle(questions)
    where = rng.randrange(3) if not d.messages else rng.randrange(2)
    if where == 0:
        ask, answer = questions.pop()
        d.say(rng.choice((f"{text} {ask}", f"Read this: {text}\n\n{ask}", f"{text}\n\nQuestion: {ask}")), answer)
    elif where == 1:
        d.say(rng.choice(("Read this: ", "Remember this text: ", "")) + text, rng.choice(("Okay, I have read it.", "Got it.")))
    else:
        d.system(rng.choice(("You are a helpful assistant. ", "Use these notes. ", "")) + text)
    for ask, answer in questions:
        d.say(ask, answer)
