"""Facts told earlier and asked for later: the answer must be copied from the conversation."""

from . import words
from .dialogue import Dialogue

# kind: (ways to tell it, ways to ask for it, the answer, an echo). {v} is the value.
KINDS = {
    "name": (
        ("My name is {v}.", "I'm {v}.", "I am {v}.", "Call me {v}.", "Hi, I'm {v}.", "Hello, my name is {v}.",
         "Hey, I am {v}.", "The name is {v}.", "You can call me {v}.", "My name's {v}.", "Hi! My name is {v}.",
         "Hello there! I'm {v}.", "People call me {v}.", "This is {v}.", "Good morning, my name is {v}."),
        ("What is my name?", "What's my name?", "Who am I?", "Do you remember my name?", "Do you know my name?",
         "What was my name?", "Can you tell me my name?", "Tell me my name.", "What am I called?",
         "Say my name.", "What was my name again?", "What did I say my name was?", "How am I called?",
         "Remind me of my name."),
        "Your name is {v}.", "Nice to meet you, {v}!"),
    "city": (
        ("I live in {v}.", "I am from {v}.", "I'm from {v}.", "My home is in {v}.", "I come from {v}.",
         "I just moved to {v}.", "I live in {v} now.", "My city is {v}.", "I was born in {v} and live there.",
         "My home town is {v}."),
        ("Where do I live?", "Where am I from?", "Which city do I live in?", "What city do I live in?",
         "Where is my home?", "Do you remember where I live?", "In which city do I live?", "What is my city?",
         "Do you know where I live?", "Where did I say I live?", "What's my home town?"),
        "You live in {v}.", "I hear that {v} is lovely!"),
    "job": (
        ("I work as {av}.", "I am {av}.", "I'm {av}.", "My job is {v}.", "I work as {av} these days.",
         "I'm {av} by profession."),
        ("What is my job?", "What do I do for a living?", "What's my job?", "What do I work as?",
         "Do you remember my job?", "What is my profession?", "Where do I earn my money?"),
        "You are {av}.", "Being {av} must be interesting."),
    "age": (
        ("I am {v} years old.", "I'm {v} years old.", "My age is {v}.", "I'm {v}.", "I turned {v} this year.",
         "I just turned {v}."),
        ("How old am I?", "What is my age?", "What's my age?", "Do you remember how old I am?",
         "Do you know my age?", "Tell me my age."),
        "You are {v} years old.", "That is a fine age."),
    "number": (
        ("My lucky number is {v}.", "My favourite number is {v}.", "The number is {v}.", "Remember the number {v}.",
         "Please remember the number {v}.", "My number is {v}.", "Keep the number {v} in mind.",
         "I am thinking of the number {v}.", "Remember this number: {v}"),
        ("What is my number?", "What was the number?", "What's the number?", "What is my lucky number?",
         "Which number did I tell you?", "Do you remember the number?", "What number did I say?", "Tell me the number.",
         "What is my favourite number?", "Which number did I ask you to remember?"),
        "The number is {v}.", "I will remember {v}."),
    "code": (
        ("The code is {v}.", "The secret code is {v}.", "My code is {v}.", "The password is {v}.",
         "Remember the code {v}.", "My password is {v}.", "The access code is {v}.", "The code word is {v}.",
         "The magic word is {v}.", "The secret word is {v}.", "Remember the word {v}.", "Remember this: {v}",
         "Please remember the word {v}."),
        ("What is the code?", "What was the code?", "What's the secret code?", "What is the password?",
         "What's my password?", "Do you remember the code?", "Tell me the code.", "What is the secret word?",
         "What was the word?", "Which word did I ask you to remember?", "What's the code word?",
         "What is the magic word?", "What did I ask you to remember?"),
        "It is {v}.", "I will remember {v}."),
    "pet_name": (
        ("My {k} is called {v}.", "I have a {k} named {v}.", "My {k}'s name is {v}.", "I have a {k} called {v}.",
         "The name of my {k} is {v}.", "I've got a {k} named {v}.", "We have a {k}. It is called {v}."),
        ("What is my {k}'s name?", "What is the name of my {k}?", "What's my {k} called?", "What is my {k} called?",
         "Do you remember my {k}'s name?", "How is my {k} called?", "What's the name of my {k}?"),
        "Your {k} is called {v}.", "What a good name, {v}!"),
    "relative": (
        ("My {k} is called {v}.", "My {k}'s name is {v}.", "The name of my {k} is {v}.",
         "I have a {k} named {v}."),
        ("What is my {k}'s name?", "Who is my {k}?", "What's the name of my {k}?", "What is my {k} called?",
         "Do you remember my {k}'s name?"),
        "Your {k} is called {v}.", "Say hello to {v} from me."),
    "favourite": (
        ("My favourite {k} is {v}.", "My favourite {k} is {v}, by the way.", "I like {v}, it is my favourite {k}.",
         "I think {v} is the best {k}. It's my favourite.", "As for the {k}, my favourite is {v}."),
        ("What is my favourite {k}?", "What's my favourite {k}?", "Which {k} is my favourite?",
         "Do you remember my favourite {k}?", "Which {k} do I like best?", "Tell me my favourite {k}.",
         "What {k} do I like most?"),
        "Your favourite {k} is {v}.", "I like {v} too."),
    "colour": (
        ("My favourite colour is {v}.", "I like the colour {v}.", "I love {v}, it is my favourite colour.",
         "I think {v} is the best colour."),
        ("What is my favourite colour?", "What's my favourite colour?", "Which colour do I like?",
         "What colour do I like?", "Do you remember my favourite colour?"),
        "Your favourite colour is {v}.", "I think {v} is beautiful."),
    "hobby": (
        ("My hobby is {v}.", "I like {v}.", "I love {v} in my free time.", "I enjoy {v}.", "My favourite hobby is {v}."),
        ("What is my hobby?", "What's my hobby?", "What do I like to do?", "What do I do in my free time?",
         "Do you remember my hobby?", "What do I enjoy?"),
        "Your hobby is {v}.", "I hear that {v} is fun!"),
    "place": (
        ("My {k} is in the {v}.", "I put my {k} in the {v}.", "I left my {k} in the {v}.", "The {k} is in the {v}.",
         "I keep the {k} in the {v}."),
        ("Where is my {k}?", "Where is the {k}?", "Where did I put my {k}?", "Do you remember where my {k} is?",
         "Where did I leave my {k}?"),
        "The {k} is in the {v}.", "I will remember that the {k} is in the {v}."),
    "owner": (
        ("The {k} is {v}.", "My {k} is {v}.", "For your information, my {k} is {v}.", "Note that the {k} is {v}.",
         "Remember that the {k} is {v}.", "Remember: the {k} is {v}.", "{k}: {v}"),
        ("What is my {k}?", "What is the {k}?", "What's the {k}?", "What was the {k}?", "Do you remember the {k}?",
         "Tell me the {k}."),
        "The {k} is {v}.", "I will remember that the {k} is {v}."),
}
_RELATIVES = ("brother sister mother father son daughter wife husband friend neighbour boss teacher uncle aunt "
              "cousin doctor best friend colleague landlord grandmother grandfather").replace(
                  "best friend", "best_friend").split()
_THINGS = ("order number, room number, phone number, account, project, team, car, company, street, school, boat, "
           "band, book, game, ship, server, database, meeting room, gate, seat, flight, train, hotel, wifi password, "
           "user id, ticket, invoice, meeting time, deadline, budget, address, model, file, key, robot, planet")
_THINGS = [t.strip() for t in _THINGS.split(",")]
_NOTED = ("Got it.", "Okay, I will remember that.", "Thanks for telling me.", "Noted.", "Good to know.",
          "All right, I will keep that in mind.")
_BEFORE_TELLING = ("", "", "", "", "", "By the way, ", "Just so you know, ", "Well, ", "Oh, and ", "Also, ")
_BEFORE_ASKING = ("", "", "", "", "", "", "And ", "So, ", "Now, ", "Okay. ", "Quick question: ", "Hey, ", "By the way, ",
                  "One more thing: ")


def new_fact(d: Dialogue, kind: str | None = None) -> tuple[str, dict, str]:
    """A fact of `kind`: its key in `d.facts`, the fields of its sentences, and the kind."""
    rng = d.rng
    kind = kind or rng.choices(
        list(KINDS), (16, 10, 4, 5, 8, 8, 8, 6, 9, 6, 4, 5, 8))[0]
    k, invented = "", rng.random() < 0.4
    word = lambda: d.value(words.made_up(rng, d.held_out))
    if kind == "name":
        v = d.name()
    elif kind == "city":
        v = d.value(word().capitalize()) if invented else d.pick(words.CITIES)
    elif kind == "job":
        v = d.pick(words.JOBS)
    elif kind == "age":
        v = str(rng.randint(5, 99))
    elif kind == "number":
        v = words.digits(rng, d.held_out)
    elif kind == "code":
        v = d.value(rng.choice((words.code, words.made_up, words.digits))(rng, d.held_out))
        if rng.random() < 0.2:
            v = d.value(v.upper())
    elif kind == "pet_name":
        k, v = words.ANIMALS.pick(rng), d.name()
    elif kind == "relative":
        k, v = rng.choice(_RELATIVES).replace("_", " "), d.name()
    elif kind == "favourite":
        k = rng.choice(list(words.FAVOURITES))
        v = word() if invented else d.pick(words.FAVOURITES[k])
        if rng.random() < 0.1:
            k = d.value(words.made_up(rng, d.held_out))
    elif kind == "colour":
        v = word() if invented else d.pick(words.COLOURS)
    elif kind == "hobby":
        v = d.pick(words.HOBBIES)
    elif kind == "place":
        k, v = words.OBJECTS.pick(rng), words.PLACES.pick(rng)
    else:
        k = rng.choice(_THINGS)
        v = d.value(rng.choice((words.code, words.made_up, words.digits))(rng, d.held_out))
        if rng.random() < 0.3:
            v = d.value(v.capitalize())
    # "The number" and "the code" would be ambiguous beside a thing of that name.
    key = kind if not k else f"{kind}:{k}"
    if kind in ("pet_name", "relative"):
        key = f"called:{k}"
    return key, {"k": k, "v": v, "av": words.article(v)}, kind


def capitalised(text: str) -> str:
    return text[0].upper() + text[1:]


def _inside(sentence: str) -> str:
    """`sentence` as it continues another one."""
    return sentence if sentence.startswith(("I ", "I'")) else sentence[0].lower() + sentence[1:]


def tell_turn(d: Dialogue, kind: str | None = None):
    """Tell one fact, sometimes two or three at once."""
    rng = d.rng
    count = 1 if kind else rng.choice((1, 1, 1, 2, 2, 3))
    told, sentences, echo = [], [], ""
    for _ in range(count):
        key, fields, fact_kind = new_fact(d, kind)
        if key in told or (key in d.facts and rng.random() < 0.7):
            continue
        tells, _, _, echo_text = KINDS[fact_kind]
        ways = [t for t in tells if not sentences or not t.startswith(("H", "Good", "This"))]
        sentences.append(capitalised(rng.choice(ways).format(**fields)))
        echo = echo_text.format(**fields)
        told.append(key)
        d.facts.pop(key, None)
        d.facts[key] = (fields, fact_kind)
    if not told:
        return
    if len(sentences) > 1 and rng.random() < 0.5:
        text = " ".join(sentences)
    elif len(sentences) > 1:
        text = " and ".join([sentences[0].rstrip(".!")] + [_inside(s.rstrip(".!")) for s in sentences[1:]]) + "."
    else:
        text = sentences[0]
        before = rng.choice(_BEFORE_TELLING)
        if before and not text.startswith(("H", "Good")):
            text = before + text
    if len(told) == 1 and rng.random() < 0.25:  # told and asked in one message
        fields, fact_kind = d.facts[told[0]]
        _, asks, answer, _ = KINDS[fact_kind]
        d.say(f"{text if text[-1] in '.!' else text + '.'} {rng.choice(asks).format(**fields)}", answer.format(**fields))
    else:
        d.say(text, echo if len(told) == 1 and rng.random() < 0.6 else rng.choice(_NOTED))


def change_turn(d: Dialogue):
    """Replace a fact told before: the newest value counts."""
    changeable = [(key, kind) for key, (_, kind) in d.facts.items() if kind in ("name", "city", "colour", "number", "code")]
    if not changeable:
        return tell_turn(d)
    rng = d.rng
    key, kind = rng.choice(changeable)
    _, fields, _ = new_fact(d, kind)
    v = fields["v"]
    text = rng.choice({
        "name": ("Actually, my name is {v}.", "Sorry, I meant {v}. My name is {v}.", "Call me {v} from now on."),
        "city": ("Actually, I live in {v} now.", "I moved to {v}.", "Sorry, I live in {v}."),
        "colour": ("Actually, my favourite colour is {v}.", "Now my favourite colour is {v}."),
        "number": ("Actually, the number is {v}.", "The number has changed to {v}."),
        "code": ("Actually, it is {v}.", "The new code is {v}.", "The code has changed to {v}."),
    }[kind]).format(v=v)
    d.facts.pop(key)
    d.facts[key] = (fields, kind)
    d.say(text, f"Okay, {v} it is.")


def ask_turn(d: Dialogue):
    """Ask for a fact told earlier; seldom for one that was never told, or for two at once."""
    rng = d.rng
    if not d.facts and rng.random() < 0.7:
        tell_turn(d)
    if not d.facts or rng.random() < 0.06:
        return ask_unknown_turn(d)
    if len(d.facts) > 1 and rng.random() < 0.15:
        picked = rng.sample(list(d.facts), 2)
        asks, answers = [], []
        for key in picked:
            fields, kind = d.facts[key]
            asks.append(rng.choice([a for a in KINDS[kind][1] if a.endswith("?")]).format(**fields))
            answers.append(KINDS[kind][2].format(**fields))
        if rng.random() < 0.5:
            text = " ".join(asks)
        else:
            text = f"{asks[0][:-1]} and {asks[1][0].lower()}{asks[1][1:]}"
        return d.say(text, " ".join(answers))
    fields, kind = d.facts[rng.choice(list(d.facts))]
    ask = rng.choice(KINDS[kind][1]).format(**fields)
    before = rng.choice(_BEFORE_ASKING)
    if before and before[-2] != ".":
        ask = ask[0].lower() + ask[1:]
    d.say(before + ask, KINDS[kind][2].format(**fields))


def ask_unknown_turn(d: Dialogue):
    """Admit that something has not been told."""
    rng = d.rng
    for _ in range(8):
        key, fields, kind = new_fact(d)
        if key not in d.facts and kind not in ("owner", "code", "number", "place"):
            break
    else:
        return
    thing = {"name": "your name", "city": "where you live", "job": "your job", "age": "your age",
             "pet_name": f"your {fields['k']}'s name", "relative": f"your {fields['k']}'s name",
             "favourite": f"your favourite {fields['k']}", "colour": "your favourite colour",
             "hobby": "your hobby"}[kind]
    d.say(rng.choice(KINDS[kind][1]).format(**fields), f"You have not told me {thing} yet.")


def quote_turn(d: Dialogue):
    """Repeat an earlier message of the user."""
    said = [m["content"] for m in d.messages if m["role"] == "user"]
    if not said:
        return
    rng = d.rng
    if rng.random() < 0.5:
        quoted = said[-1]
        asks = ("What was my last message?", "What did I just say?", "What did I say before this?",
                "Repeat my last message.")
    else:
        quoted = said[0]
        asks = ("What was my first message?", "What did I say first?",
                "How did I start this conversation?", "What was the first thing I said?")
    if len(quoted) < 60:
        d.say(rng.choice(asks), f"You wrote: {quoted}")
