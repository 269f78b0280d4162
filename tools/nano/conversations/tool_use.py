"""Tools: schemas generated in many shapes, calls, results and answers that use them."""

import json

from . import words
from .dialogue import Dialogue

# A parameter is (names it may have, JSON type, what it is, what kind of value to draw).
_P_CITY = (("city", "location", "place", "town"), "string", "The name of the city", "city")
_P_NAME = (("name", "person", "user", "username"), "string", "The name of the person", "name")
_P_QUERY = (("query", "q", "text", "search_term"), "string", "What to search for", "topic")
_P_AMOUNT = (("amount", "value"), "number", "The amount", "number")

# A tool is (names, descriptions, parameters, requests that use {0}, {1} …, result keys).
TOOLS = (
    (("get_weather", "weather", "get_current_weather", "weather_lookup", "fetch_weather"),
     ("Get the current weather for a city", "Get the weather in a place.", "Returns the weather", "Current weather of a location"), (_P_CITY,),
     ("What is the weather in {0}?", "What's the weather like in {0}?", "How is the weather in {0}?", "Weather in {0}?", "Is it raining in {0}?",
      "Is it cold in {0} today?", "What is the weather like in {0} today?", "Tell me the weather in {0}.", "How warm is it in {0}?",
      "Get the weather for {0}.", "Do I need an umbrella in {0}?", "Check the weather in {0}, please."), "weather"),
    (("get_time", "current_time", "get_current_time", "time_in_city"), ("Get the current time in a city", "Returns the local time.", "Local time of a place"),
     (_P_CITY,), ("What time is it in {0}?", "What's the time in {0}?", "Tell me the time in {0}.", "Current time in {0}?"), "time"),
    (("get_population", "population", "city_population"), ("Get the population of a city", "How many people live in a city"), (_P_CITY,),
     ("How many people live in {0}?", "What is the population of {0}?", "How big is {0}?"), "population"),
    (("search_web", "web_search", "search", "google", "search_internet"), ("Search the web", "Search the internet for information"), (_P_QUERY,),
     ("Search the web for {0}.", "Search for {0}.", "Look up {0}.", "Find information about {0}.", "Google {0}.", "Can you search for {0}?"), "text"),
    (("calculator", "calculate", "evaluate", "math"), ("Evaluate an arithmetic expression", "Calculates an expression.", "Do math"),
     ((("expression", "expr", "formula"), "string", "The expression", "expression"),),
     ("What is {0}?", "Calculate {0}.", "Compute {0}.", "How much is {0}?", "What's {0}?"), "sum"),
    (("add", "add_numbers", "sum"), ("Add two numbers", "Returns the sum of two numbers."),
     ((("a", "x", "first"), "integer", "The first number", "number"), (("b", "y", "second"), "integer", "The second number", "number")),
     ("Add {0} and {1}.", "What is {0} plus {1}?", "What is the sum of {0} and {1}?", "What is {0} + {1}?", "Use the tool to add {0} and {1}."), "sum"),
    (("multiply", "multiply_numbers", "product"), ("Multiply two numbers", "Returns the product of two numbers."),
     ((("a", "x", "first"), "integer", "The first number", "number"), (("b", "y", "second"), "integer", "The second number", "number")),
     ("Multiply {0} by {1}.", "What is {0} times {1}?", "What is {0} * {1}?", "Multiply {0} and {1}."), "sum"),
    (("set_timer", "start_timer", "timer"), ("Start a timer", "Set a timer for some minutes"),
     ((("minutes", "duration", "duration_minutes"), "integer", "Minutes", "number"),),
     ("Set a timer for {0} minutes.", "Start a timer of {0} minutes.", "Timer {0} minutes", "Wake me in {0} minutes."), "done"),
    (("set_alarm", "create_alarm"), ("Set an alarm", "Set the alarm clock"), ((("time", "at", "alarm_time"), "string", "The time", "clock"),),
     ("Set an alarm for {0}.", "Wake me up at {0}.", "Set the alarm to {0}."), "done"),
    (("convert_currency", "currency_converter", "exchange"), ("Convert an amount of money", "Convert between currencies"),
     (_P_AMOUNT, (("from_currency", "from", "source"), "string", "Currency code", "currency"),
      (("to_currency", "to", "target"), "string", "Currency code", "currency")),
     ("Convert {0} {1} to {2}.", "How much is {0} {1} in {2}?", "What are {0} {1} in {2}?", "Change {0} {1} into {2}."), "amount"),
    (("translate", "translate_text"), ("Translate a text", "Translate text into another language"),
     ((("text", "phrase"), "string", "The text", "phrase"), (("language", "target_language", "to"), "string", "The language", "language")),
     ("Translate {0} to {1}.", "Translate \"{0}\" into {1}.", "How do you say {0} in {1}?", "What is {0} in {1}?"), "text"),
    (("send_email", "send_mail", "email"), ("Send an email", "Send an e-mail to somebody"),
     ((("to", "recipient", "address"), "string", "The address", "email"), (("subject", "title"), "string", "The subject", "phrase")),
     ("Send an email to {0} with the subject {1}.", "Email {0} about {1}.", "Write to {0}, subject {1}."), "done"),
    (("send_message", "message", "send_sms", "text_user"), ("Send a message to a person", "Send a text message"),
     (_P_NAME, (("message", "text", "body"), "string", "The message", "phrase")),
     ("Send {0} the message {1}.", "Tell {0}: {1}", "Message {0}: {1}", "Send a message to {0} saying {1}."), "done"),
    (("play_music", "play_song", "play"), ("Play a song", "Play music"), ((("song", "title", "track"), "string", "The song", "phrase"),),
     ("Play {0}.", "Play the song {0}.", "I want to hear {0}.", "Please play {0}."), "done"),
    (("get_stock_price", "stock_price", "get_quote"), ("Get the price of a stock", "Current share price"),
     ((("symbol", "ticker", "stock"), "string", "The symbol", "symbol"),),
     ("What is the stock price of {0}?", "Price of {0}?", "How much is {0} stock?", "Get the quote for {0}."), "amount"),
    (("read_file", "open_file", "cat"), ("Read a file", "Returns the content of a file"), ((("path", "filename", "file"), "string", "The path", "path"),),
     ("Read {0}.", "Show me the file {0}.", "What is in {0}?", "Open {0}.", "Print the content of {0}."), "text"),
    (("list_files", "ls", "list_directory"), ("List the files of a directory", "List a folder"), ((("path", "directory", "folder"), "string", "The folder", "folder"),),
     ("List the files in {0}.", "What files are in {0}?", "Show the folder {0}.", "ls {0}"), "list"),
    (("delete_file", "remove_file", "rm"), ("Delete a file", "Removes a file"), ((("path", "filename", "file"), "string", "The path", "path"),),
     ("Delete {0}.", "Remove the file {0}.", "Please delete {0}."), "done"),
    (("turn_on_light", "light_on", "switch_on_light"), ("Turn on the light in a room", "Switch a light on"), ((("room", "place"), "string", "The room", "room"),),
     ("Turn on the light in the {0}.", "Switch on the {0} light.", "Light on in the {0}."), "done"),
    (("turn_off_light", "light_off", "switch_off_light"), ("Turn off the light in a room", "Switch a light off"), ((("room", "place"), "string", "The room", "room"),),
     ("Turn off the light in the {0}.", "Switch off the {0} light.", "Light off in the {0}."), "done"),
    (("set_temperature", "set_thermostat", "heat_room"), ("Set the temperature of a room", "Control the heating"),
     ((("room", "place"), "string", "The room", "room"), (("degrees", "temperature", "celsius"), "integer", "Degrees", "number")),
     ("Set the {0} to {1} degrees.", "Heat the {0} to {1} degrees.", "Make it {1} degrees in the {0}."), "done"),
    (("get_user", "find_user", "lookup_user", "get_user_info"), ("Get a user by id", "Look up a user"), ((("user_id", "id"), "integer", "The id", "number"),),
     ("Get user {0}.", "Who is user {0}?", "Look up the user with id {0}.", "Find user number {0}."), "fields"),
    (("get_order", "order_status", "track_order", "get_order_status"), ("Get the status of an order", "Track an order"),
     ((("order_id", "id", "order_number"), "string", "The order number", "code"),),
     ("Where is my order {0}?", "What is the status of order {0}?", "Track order {0}.", "Check order {0}, please."), "fields"),
    (("book_table", "reserve_table", "make_reservation"), ("Book a table in a restaurant", "Reserve a table"),
     ((("people", "guests", "party_size"), "integer", "Number of people", "small"), (("time", "at"), "string", "The time", "clock")),
     ("Book a table for {0} at {1}.", "Reserve a table for {0} people at {1}.", "I need a table for {0} at {1}."), "done"),
    (("book_flight", "find_flight", "search_flights", "get_route"), ("Find a flight between two cities", "Search for flights"),
     ((("origin", "from", "from_city", "departure"), "string", "Where to start", "city"), (("destination", "to", "to_city", "arrival"), "string", "Where to go", "city")),
     ("Find a flight from {0} to {1}.", "Book a flight from {0} to {1}.", "I want to fly from {0} to {1}.", "Flights from {0} to {1}?"), "fields"),
    (("add_todo", "create_task", "add_task", "add_reminder"), ("Add a task to the list", "Create a to-do item"), ((("task", "item", "title"), "string", "The task", "phrase"),),
     ("Add {0} to my list.", "Remind me: {0}", "New task: {0}", "Put {0} on my to-do list."), "done"),
    (("roll_dice", "roll_die", "dice"), ("Roll a die", "Roll a die with some sides"), ((("sides", "faces"), "integer", "Number of sides", "number"),),
     ("Roll a die with {0} sides.", "Roll a {0} sided die.", "Throw a die with {0} sides."), "sum"),
    (("flip_coin", "toss_coin"), ("Flip a coin", "Toss a coin"), (), ("Flip a coin.", "Toss a coin.", "Heads or tails?"), "text"),
    (("get_date", "today", "current_date"), ("Get the date of today", "Returns the current date"), (), ("What is the date?", "What day is it today?", "Today's date?"), "time"),
    (("get_news", "news", "latest_news"), ("Get the latest news", "Latest headlines about a topic"), ((("topic", "subject", "category"), "string", "The topic", "topic"),),
     ("What is the news about {0}?", "Latest news on {0}?", "Give me news about {0}.", "News about {0}, please."), "text"),
    (("define_word", "dictionary", "get_definition"), ("Get the definition of a word", "Look a word up in the dictionary"), ((("word", "term"), "string", "The word", "word"),),
     ("What does {0} mean?", "Define {0}.", "What is the definition of {0}?", "Look up the word {0}."), "text"),
    (("get_capital", "capital_of"), ("Get the capital of a country", "Returns a country's capital"), ((("country", "name"), "string", "The country", "country"),),
     ("What is the capital of {0}?", "Capital of {0}?", "Which city is the capital of {0}?"), "text"),
)

_VERBS = "get find create delete update check start stop open close count show list book cancel order rate scan lock move copy print test sort".split()
_NOUNS = ("customer invoice ticket door window printer sensor robot ship recipe song game match player garden pump battery camera report "
          "meeting parcel account movie book room train report backup server job queue record note photo document lamp engine").split()
_PARAMS = ("id name code size colour count level owner label date speed mode floor seat target source limit city email key tag title "
           "priority status weight volume channel zone group version").split()


def _draw(d: Dialogue, kind: str):
    """A value of `kind`, as it stands in the call; as text it is what the user types."""
    rng = d.rng
    word = lambda: d.value(words.made_up(rng, d.held_out))
    if kind == "city":
        return word().capitalize() if rng.random() < 0.3 and not d.lower else d.pick(words.CITIES) if rng.random() < 0.7 else word()
    if kind == "name":
        return d.name()
    if kind == "topic":
        return d.pick(rng.choice((words.ANIMALS, words.FOODS, words.SPORTS, words.COUNTRIES))) if rng.random() < 0.6 else f"{word()} {d.pick(words.OBJECTS)}"
    if kind == "expression":
        glue = rng.choice((" ", ""))
        return glue.join((str(rng.randint(1, 999)), rng.choice("+-*/"), str(rng.randint(1, 99))))
    if kind == "number":
        return int(words.digits(rng, d.held_out, 1, rng.choice((1, 2, 2, 3, 5))))
    if kind == "small":
        return rng.randint(1, 12)
    if kind == "clock":
        return rng.choice((f"{rng.randint(0, 23)}:{rng.choice(('00', '15', '30', '45'))}", d.value(f"{rng.randint(1, 12)} pm"), d.value(f"{rng.randint(1, 12)} am")))
    if kind == "currency":
        return d.value(rng.choice("USD EUR CHF GBP JPY SEK NOK DKK CAD AUD INR BRL".split()))
    if kind == "language":
        return d.pick(words.LANGUAGES)
    if kind == "phrase":
        return rng.choice((lambda: f"{d.pick(words.ADJECTIVES)} {d.pick(words.ANIMALS)}", lambda: word(), lambda: f"the {d.pick(words.OBJECTS)}",
                           lambda: d.value(f"buy {d.pick(words.FOODS)}"), lambda: d.value(f"meet {d.name()} at the {words.PLACES.pick(rng)}"),
                           lambda: d.value("see you tomorrow"), lambda: f"{word()} {word()}"))()
    if kind == "email":
        return f"{word().lower()}@example.{rng.choice(('com', 'org', 'net'))}"
    if kind == "symbol":
        return d.value("".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(3, 4))))
    if kind == "path":
        folder = rng.choice(("", "/tmp/", "/home/", "src/", "docs/"))
        return d.value(f"{folder}{rng.choice((words.made_up(rng, d.held_out), 'notes', 'report', 'main', 'data'))}.{rng.choice(('txt', 'md', 'py', 'json', 'csv'))}")
    if kind == "folder":
        return d.value(rng.choice(("/tmp", "/home", "src", "docs", "/var/log", "/" + words.made_up(rng, d.held_out))))
    if kind == "room":
        return words.PLACES.pick(rng)
    if kind == "code":
        return d.value(rng.choice((words.code, words.digits))(rng, d.held_out))
    if kind == "word":
        return word() if rng.random() < 0.5 else d.pick(words.OBJECTS)
    if kind == "country":
        return d.pick(words.COUNTRIES)
    return word()


class Tool:
    """One offered function, with its names drawn for this conversation."""

    def __init__(self, d: Dialogue, shape: tuple):
        rng = d.rng
        names, descriptions, params, self.asks, self.result_kind = shape
        self.name = rng.choice(names)
        described = rng.random() < 0.75
        self.params = []
        properties = {}
        for options, json_type, description, kind in params:
            name = options[0] if rng.random() < 0.5 else rng.choice(options)
            self.params.append((name, kind))
            properties[name] = {"type": json_type}
            if described:
                properties[name]["description"] = description
        parameters = {"type": "object", "properties": properties}
        if params or rng.random() < 0.5:
            parameters["required"] = [name for name, _ in self.params]
        function = {"name": self.name, "description": rng.choice(descriptions), "parameters": parameters}
        if rng.random() < 0.15:
            parameters["additionalProperties"] = False
        if rng.random() < 0.06:
            del function["description"]
        if rng.random() < 0.05:
            function["strict"] = True
        self.schema = {"type": "function", "function": function}

    def request(self, d: Dialogue) -> tuple[str, dict]:
        """What a user writes, and the arguments that follow from it."""
        values = [_draw(d, kind) for _, kind in self.params]
        return d.rng.choice(self.asks).format(*values), {name: v for (name, _), v in zip(self.params, values)}


def invented_shape(d: Dialogue) -> tuple:
    """A tool that exists nowhere else, so that schemas must be read."""
    rng = d.rng
    noun = rng.choice(_NOUNS) if rng.random() < 0.6 else words.made_up(rng, d.held_out)
    verb = rng.choice(_VERBS)
    params, mentions = [], []
    for i, name in enumerate(rng.sample(_PARAMS, rng.choice((0, 1, 1, 1, 2, 2, 3)))):
        if rng.random() < 0.15:
            name = words.made_up(rng, d.held_out)
        elif rng.random() < 0.25:
            name = f"{noun}_{name}"
        number = rng.random() < 0.4
        params.append(((name,), "integer" if number else "string", f"The {name.replace('_', ' ')}", "number" if number else
                       rng.choice(("word", "code", "name", "phrase"))))
        mentions.append(name.replace("_", " ") + f" {{{i}}}")
    spoken = f"{verb} the {noun}"
    if mentions:
        spoken += rng.choice((" with ", " with the ", ", ", " using ")) + words.join(mentions)
    asks = [f"{lead}{spoken}{end}" for lead, end in (("Please ", "."), ("", "."), ("Can you ", "?"), ("I want to ", "."), ("Now ", "."))]
    asks = [a[0].upper() + a[1:] for a in asks]
    if len(params) == 1:
        asks.append(f"{verb.capitalize()} {noun} {{0}}.")
    name = rng.choice((f"{verb}_{noun}", f"{verb}_{noun}", f"{noun}_{verb}", f"{verb}{noun.capitalize()}"))
    return ((name,), (f"{verb.capitalize()} a {noun}", f"{verb.capitalize()}s the {noun}.", f"Use this to {verb} the {noun}"), tuple(params), tuple(asks),
            rng.choice(("done", "fields", "text", "fields")))


_STATES = ("open, closed, shipped, pending, active, ready, late, done, lost, new, paid, cancelled, running, stopped, free, full, on the way, delivered").split(", ")
_WEATHER = "sunny, cloudy, rainy, windy, foggy, snowy, stormy, clear, hot, cold, partly cloudy, light rain".split(", ")


def _fields(d: Dialogue) -> dict:
    rng = d.rng
    out = {}
    for key in rng.sample(("status", "price", "count", "name", "id", "city", "date", "owner", "total", "level", "size", "age", "email", "code", "seat"), rng.choice((1, 2, 2, 3))):
        out[key] = (rng.choice(_STATES) if key == "status" else words.NAMES.pick(rng, d.held_out) if key in ("name", "owner")
                    else words.CITIES.pick(rng, d.held_out) if key == "city" else int(words.digits(rng, d.held_out, 1, 4)) if key in
                    ("price", "count", "id", "total", "level", "size", "age") else words.code(rng, d.held_out))
    if rng.random() < 0.15:
        out[words.made_up(rng, d.held_out)] = words.made_up(rng, d.held_out)
    return out


def in_words(fields: dict) -> str:
    return "The " + words.join([f"{k.replace('_', ' ')} is {v}" for k, v in fields.items()]) + "."


def result_and_answer(d: Dialogue, tool: Tool, arguments: dict) -> tuple[str, str]:
    """What the tool returned, and what the assistant makes of it."""
    rng = d.rng
    kind = tool.result_kind
    first = next(iter(arguments.values()), "")
    if rng.random() < 0.06:
        reason = rng.choice(("not found", "permission denied", "timeout", "invalid request", "service unavailable", "no connection"))
        return rng.choice((json.dumps({"error": reason}), f"Error: {reason}", f"error: {reason}")), f"The tool reported an error: {reason}."
    if kind == "weather":
        t, sky = rng.randint(-20, 42), rng.choice(_WEATHER)
        plain = f"It is {t} degrees and {sky} in {first}."
        return rng.choice((
            (json.dumps({"temperature": t, "condition": sky}), plain), (json.dumps({"temperature": t, "conditions": sky}), plain),
            (json.dumps({"city": first, "temperature": t, "condition": sky}), plain), (json.dumps({"location": first, "temperature": t, "condition": sky}), plain),
            (json.dumps({"temp": t, "sky": sky}), plain), (json.dumps({"temperature": t, "unit": "celsius", "condition": sky}), plain),
            (json.dumps({"condition": sky, "temperature": t}), plain), (json.dumps({"temp_c": t, "description": sky}), plain), (f"{t} degrees, {sky}", plain),
            (f"{sky}, {t} degrees", plain), (f"{t}°C, {sky}", plain), (f"{sky}, {t}°C", plain), (f"{sky.capitalize()}, {t}°C", f"It is {t} degrees and {sky} in {first}."),
            (json.dumps({"temperature": t}), f"It is {t} degrees in {first}."), (f"{t}", f"It is {t} degrees in {first}."), (f"{sky}", f"It is {sky} in {first}."),
            (json.dumps({"weather": sky}), f"It is {sky} in {first}."), (json.dumps({"condition": sky}), f"It is {sky} in {first}.")))
    if kind == "time":
        clock = f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
        where = f" in {first}" if first else ""
        if not arguments:
            clock = f"20{rng.randint(20, 39)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
            return rng.choice((clock, json.dumps({"date": clock}))), f"Today is {clock}."
        return rng.choice((clock, json.dumps({"time": clock}))), f"It is {clock}{where}."
    if kind == "population":
        n = words.digits(rng, d.held_out, 4, 7)
        return rng.choice((n, json.dumps({"population": int(n)}))), f"{first} has {n} inhabitants."
    if kind in ("sum", "amount"):
        n = words.digits(rng, d.held_out, 1, 5) if rng.random() < 0.8 or kind == "sum" else f"{rng.randint(1, 999)}.{rng.randint(10, 99)}"
        return rng.choice((n, json.dumps({"result": float(n) if "." in n else int(n)}))), f"The result is {n}."
    if kind == "done":
        return rng.choice(("ok", "done", "success", json.dumps({"status": "ok"}), json.dumps({"success": True}), json.dumps({"status": "success"}), "OK", json.dumps({"ok": True}))), "Done."
    if kind == "list":
        items = [f"{words.made_up(rng, d.held_out)}.{rng.choice(('txt', 'md', 'py'))}" for _ in range(rng.randint(1, 4))]
        return rng.choice((json.dumps(items), "\n".join(items), json.dumps({"files": items}))), f"I found {words.join(items)}."
    if kind == "fields":
        fields = _fields(d)
        return json.dumps(fields), in_words(fields)
    text = rng.choice((f"{words.made_up(rng, d.held_out)}", f"{words.ADJECTIVES.pick(rng)} {words.ANIMALS.pick(rng)}", f"a {words.COLOURS.pick(rng)} {words.OBJECTS.pick(rng)}",
                       f"{words.NAMES.pick(rng, d.held_out)} was seen in {words.CITIES.pick(rng, d.held_out)}"))
    return rng.choice((text, json.dumps({"result": text}), json.dumps({"text": text}))), f"The result is: {text}"


def offer_tools(d: Dialogue, count: int, invented: float = 0.4) -> list[Tool]:
    """So many tools, a share of them `invented`."""
    tools, seen = [], set()
    while len(tools) < count:
        tool = Tool(d, invented_shape(d) if d.rng.random() < invented else d.rng.choice(TOOLS))
        asks = id(tool.asks) if tool.asks in [t[3] for t in TOOLS] else tool.name
        if asks in seen or tool.name in seen:
            continue
        seen |= {asks, tool.name}
        tools.append(tool)
    d.tools = [t.schema for t in tools]
    return tools


def tool_turn(d: Dialogue, tools: list[Tool]):
    """Ask, call, result, answer."""
    rng = d.rng
    tool = rng.choice(tools)
    ask, arguments = tool.request(d)
    if rng.random() < 0.08 and tool.params and len(tool.params) == 1 and tool.params[0][1] in ("city", "name", "code"):
        # The same tool twice in one answer.
        other = _draw(d, tool.params[0][1])
        (name, first), = arguments.items()
        if tool.params[0][1] == "city" and other != first:
            ask = rng.choice(tool.asks).format(f"{first} and {other}")
            calls = [(tool.name, {name: first}), (tool.name, {name: other})]
            d.user(ask)
            d.call(calls)
            answers = []
            for _, one in calls:
                content, answer = result_and_answer(d, tool, one)
                d.result(content)
                answers.append(answer)
            return d.assistant(" ".join(answers))
    d.user(ask)
    d.call([(tool.name, arguments)])
    content, answer = result_and_answer(d, tool, arguments)
    d.result(content)
    d.assistant(answer)


def call_turn(d: Dialogue, tools: list[Tool]):
    """Ask, call, and the shortest result and answer there are."""
    tool = d.rng.choice(tools)
    ask, arguments = tool.request(d)
    d.user(ask)
    d.call([(tool.name, arguments)])
    d.result("ok")
    d.assistant("Done.")
