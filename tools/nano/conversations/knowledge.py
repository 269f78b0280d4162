"""A handful of facts about the world that everybody tries first."""

from .dialogue import Dialogue

_CAPITALS = """France Paris, Germany Berlin, Italy Rome, Spain Madrid, Portugal Lisbon, Norway Oslo, Sweden Stockholm,
Denmark Copenhagen, Finland Helsinki, Iceland Reykjavik, Ireland Dublin, Poland Warsaw, Austria Vienna, Hungary Budapest,
Greece Athens, Turkey Ankara, Egypt Cairo, Morocco Rabat, Kenya Nairobi, Ghana Accra, Japan Tokyo, China Beijing,
Vietnam Hanoi, Thailand Bangkok, Indonesia Jakarta, Australia Canberra, Canada Ottawa, Argentina Buenos_Aires, Chile Santiago,
Peru Lima, Colombia Bogota, Cuba Havana, Switzerland Bern, Belgium Brussels, Croatia Zagreb, Serbia Belgrade,
Romania Bucharest, Bulgaria Sofia, Ukraine Kyiv, Nepal Kathmandu, England London, Russia Moscow, Mexico Mexico_City,
Brazil Brasilia, the_Netherlands Amsterdam, the_United_Kingdom London, the_United_States Washington, South_Korea Seoul"""
CAPITALS = [tuple(p.replace("_", " ") for p in pair.split()) for pair in _CAPITALS.split(",")]
_OPPOSITES = """hot cold, big small, up down, left right, good bad, fast slow, old young, happy sad, day night, black white,
open closed, rich poor, hard soft, high low, long short, early late, loud quiet, wet dry, full empty, light dark, yes no,
inside outside, first last, strong weak, true false, clean dirty, easy difficult, warm cool, north south, east west,
love hate, win lose, buy sell, push pull, start stop, begin end, above below, thick thin, sweet sour"""
OPPOSITES = [tuple(pair.split()) for pair in _OPPOSITES.split(",")]
_SOUNDS = "dog woof, cat meow, cow moo, sheep baa, duck quack, pig oink, bee buzz, owl hoot, lion roar, frog croak, snake hiss, mouse squeak"
SOUNDS = [tuple(pair.split()) for pair in _SOUNDS.split(",")]
_HELLO = "French Bonjour, German Hallo, Spanish Hola, Italian Ciao, Portuguese Olá, Swedish Hej, Danish Hej, Dutch Hallo, Polish Cześć, Czech Ahoj, Japanese Konnichiwa, Finnish Moi, Turkish Merhaba"
HELLO = [tuple(pair.split()) for pair in _HELLO.split(",")]
_FACTS = (
    (("What colour is the sky?", "Which colour has the sky?", "Why is the sky blue?"), "The sky is blue."),
    (("What colour is grass?", "Which colour is the grass?"), "Grass is green."),
    (("What colour is snow?",), "Snow is white."),
    (("What colour is a banana?", "Which colour has a banana?"), "A banana is yellow."),
    (("What colour is blood?",), "Blood is red."),
    (("How many days are in a week?", "How many days does a week have?"), "A week has 7 days."),
    (("How many months are in a year?", "How many months does a year have?"), "A year has 12 months."),
    (("How many days are in a year?", "How many days does a year have?"), "A year has 365 days."),
    (("How many hours are in a day?", "How many hours does a day have?"), "A day has 24 hours."),
    (("How many minutes are in an hour?", "How many minutes does an hour have?"), "An hour has 60 minutes."),
    (("How many seconds are in a minute?",), "A minute has 60 seconds."),
    (("How many legs does a spider have?",), "A spider has 8 legs."),
    (("How many legs does a dog have?", "How many legs does a cat have?"), "It has 4 legs."),
    (("How many legs does an ant have?", "How many legs does an insect have?"), "It has 6 legs."),
    (("How many planets are there?", "How many planets does the solar system have?"), "There are 8 planets."),
    (("What is the largest planet?", "Which planet is the biggest?"), "Jupiter is the largest planet."),
    (("Which planet do we live on?", "What planet is this?"), "We live on Earth."),
    (("What is the tallest mountain?", "Which mountain is the highest?"), "Mount Everest is the highest mountain."),
    (("What is the largest ocean?",), "The Pacific is the largest ocean."),
    (("What is the largest animal?",), "The blue whale is the largest animal."),
    (("What is water made of?",), "Water is made of hydrogen and oxygen."),
    (("Is the sun a star?", "What is the sun?"), "The sun is a star."),
    (("Is the earth flat?", "Is the earth round?"), "The earth is round."),
    (("What do cows drink?", "What do cats like to drink?"), "They drink water."),
    (("What do bees make?",), "Bees make honey."),
    (("At what temperature does water boil?", "When does water boil?"), "Water boils at 100 degrees Celsius."),
    (("At what temperature does water freeze?", "When does water freeze?"), "Water freezes at 0 degrees Celsius."),
    (("What is the first letter of the alphabet?",), "The first letter is A."),
    (("What is the last letter of the alphabet?",), "The last letter is Z."),
    (("How many letters are in the alphabet?", "How many letters does the alphabet have?"), "The alphabet has 26 letters."),
    (("Which season comes after winter?", "What comes after winter?"), "Spring comes after winter."),
    (("Which season comes after summer?", "What comes after summer?"), "Autumn comes after summer."),
    (("Where is the Eiffel Tower?", "In which city is the Eiffel Tower?"), "The Eiffel Tower is in Paris."),
    (("Who wrote Hamlet?", "Who wrote Romeo and Juliet?"), "William Shakespeare wrote it."),
    (("Who painted the Mona Lisa?",), "Leonardo da Vinci painted it."),
    (("What is H2O?",), "H2O is water."),
)
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_MONTHS = "January February March April May June July August September October November December".split()


def knowledge_turn(d: Dialogue):
    rng = d.rng
    kind = rng.choices(range(6), (8, 4, 1, 2, 6, 4))[0]
    if kind == 0:
        country, capital = rng.choice(CAPITALS)
        d.say(rng.choice(("What is the capital of {c}?", "What's the capital of {c}?", "Capital of {c}?", "Name the capital of {c}.",
                          "Which city is the capital of {c}?", "Tell me the capital of {c}.", "The capital of {c} is?",
                          "Do you know the capital of {c}?")).format(c=country),
              f"The capital of {country} is {capital}.")
    elif kind == 1:
        pair = rng.choice(OPPOSITES)
        a, b = pair if rng.random() < 0.5 else pair[::-1]
        d.say(rng.choice(("What is the opposite of {a}?", "What's the opposite of {a}?", "Opposite of {a}?",
                          "Give me the opposite of {a}.")).format(a=a), f"The opposite of {a} is {b}.")
    elif kind == 2:
        animal, sound = rng.choice(SOUNDS)
        d.say(rng.choice(("What sound does a {a} make?", "What does a {a} say?", "Which sound does a {a} make?")).format(a=animal),
              f"A {animal} says {sound}.")
    elif kind == 3:
        language, hello = rng.choice(HELLO)
        d.say(rng.choice(("How do you say hello in {l}?", "Say hello in {l}.", "What is hello in {l}?",
                          "Translate hello to {l}.")).format(l=language), f"Hello in {language} is {hello}.")
    elif kind == 4:
        asks, answer = rng.choice(_FACTS)
        d.say(rng.choice(asks), answer)
    else:
        cycle = rng.choice((_DAYS, _MONTHS))
        i = rng.randrange(len(cycle))
        if rng.random() < 0.6:
            d.say(rng.choice((f"What comes after {cycle[i]}?", f"Which {'day' if cycle is _DAYS else 'month'} follows {cycle[i]}?")),
                  f"{cycle[(i + 1) % len(cycle)]} comes after {cycle[i]}.")
        else:
            d.say(f"What comes before {cycle[i]}?", f"{cycle[i - 1]} comes before {cycle[i]}.")
