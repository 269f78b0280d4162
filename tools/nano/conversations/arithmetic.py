"""Small sums. Some pairs are held out: they are asked in evaluation and never in training."""

import zlib
from random import Random

from .dialogue import Dialogue

NUMBER_WORDS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen "
                "fourteen fifteen sixteen seventeen eighteen nineteen twenty").split()

_SPOKEN = {
    "+": ("{a} plus {b}", "the sum of {a} and {b}", "{a} and {b} together"),
    "-": ("{a} minus {b}", "{a} take away {b}", "{b} less than {a}"),
    "*": ("{a} times {b}", "{a} multiplied by {b}", "the product of {a} and {b}"),
    "/": ("{a} divided by {b}", "{a} over {b}"),
}
_WRITTEN = {
    "+": ("{a} + {b}", "{a}+{b}"),
    "-": ("{a} - {b}", "{a}-{b}"),
    "*": ("{a} * {b}", "{a}*{b}", "{a} x {b}", "{a}x{b}", "{a} × {b}"),
    "/": ("{a} / {b}", "{a}/{b}", "{a} ÷ {b}", "{a} : {b}"),
}
_ASKS = ("What is {e}?", "What's {e}?", "How much is {e}?", "{e}", "{e}?", "{e} = ?", "{e} =", "{e}=",
         "Calculate {e}.", "Compute {e}.", "Can you calculate {e}?", "Tell me {e}.", "What does {e} equal?",
         "What do you get for {e}?", "Solve {e}.", "Please compute {e}.", "What is {e}", "Work out {e}.",
         "And {e}?", "Now {e}.", "Quick: {e}?", "Do you know what {e} is?", "I need {e}.", "What's {e} please?")
_SHOWN = {"+": "+", "-": "-", "*": "×", "/": "÷"}


def is_held_out(op: str, a: int, b: int) -> bool:
    """One sum or difference in twelve, but never the small ones that everybody tries first.

    Sums up to 40 also occur inside sums of three numbers, and adding one inside `What comes after`,
    so they would not be held out in truth. The times table is a table: nobody infers 7 × 8 from the
    rest of it, so all of it is taught, and evaluation says so.
    """
    if op in "*/" or max(a, b) <= (40 if op == "+" else 10) or op == "+" and min(a, b) <= 1:
        return False
    if op == "+":
        a, b = min(a, b), max(a, b)
    return zlib.crc32(f"{a}{op}{b}".encode()) % 12 == 0


def result(op: str, a: int, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[op]


def draw(rng: Random, held_out: bool = False, op: str | None = None) -> tuple[str, int, int]:
    wanted = op
    while True:
        op = wanted or rng.choice("++++-----***//")
        if op in "+-":
            top = rng.choice((10, 20, 20, 50, 50, 99, 99, 99, 99))
            a, b = rng.randint(0, top), rng.randint(0, top)
            if op == "-" and b > a and rng.random() < 0.8:
                a, b = b, a
        elif op == "*":
            a, b = rng.randint(0, 12), rng.randint(0, 12)
        else:
            b, quotient = rng.randint(1, 12), rng.randint(0, 12)
            a = b * quotient
        if op in "*/" or is_held_out(op, a, b) == held_out:
            return op, a, b


def answer(op: str, a: int, b: int) -> str:
    return f"{a} {_SHOWN[op]} {b} = {result(op, a, b)}."


def question(d: Dialogue, op: str, a: int, b: int) -> str:
    rng = d.rng
    spoken = rng.random() < 0.35
    shape = rng.choice((_SPOKEN if spoken else _WRITTEN)[op])
    x, y = str(a), str(b)
    if spoken and a <= 20 and b <= 20 and rng.random() < 0.4:
        x, y = NUMBER_WORDS[a], NUMBER_WORDS[b]
    text = rng.choice(_ASKS).format(e=shape.format(a=x, b=y))
    return text[0].upper() + text[1:]


def sum_turn(d: Dialogue):
    op, a, b = draw(d.rng, d.held_out)
    d.say(question(d, op, a, b), answer(op, a, b))
    d.last_result = result(op, a, b)


def follow_up_turn(d: Dialogue):
    """`And plus 3?` after a sum."""
    if d.last_result is None or not 0 <= d.last_result <= 99:
        return sum_turn(d)
    a = d.last_result
    for _ in range(50):
        op, b = d.rng.choice("++-"), d.rng.randint(1, 20)
        if (op == "+" or b <= a) and (is_held_out(op, a, b) == d.held_out or a + b <= 10):
            break
    else:
        return sum_turn(d)  # nothing near this number is held out
    text = d.rng.choice({
        "+": ("And plus {b}?", "Add {b} to that.", "Now add {b}.", "Plus {b}?", "What if you add {b}?"),
        "-": ("And minus {b}?", "Subtract {b} from that.", "Now subtract {b}.", "Minus {b}?",
              "Take {b} away from that."),
    }[op]).format(b=b)
    d.say(text, answer(op, a, b))
    d.last_result = result(op, a, b)


def story_problem_turn(d: Dialogue):
    rng = d.rng
    things = rng.choice("apples oranges books coins stamps eggs cookies marbles pens flowers balls cups "
                        "cards shells tickets".split())
    who = d.name()
    while True:
        op = rng.choice("+-")
        a, b = rng.randint(1, 30), rng.randint(1, 20)
        if op == "+" or b < a and is_held_out(op, a, b) == d.held_out:  # sums this small never are
            break
    total = result(op, a, b)
    if op == "+":
        text = rng.choice((
            f"I have {a} {things} and buy {b} more. How many {things} do I have?",
            f"I have {a} {things}. {who} gives me {b} more. How many do I have now?",
            f"If I have {a} {things} and get {b} more, how many {things} do I have?",
            f"There are {a} {things} in one box and {b} in another. How many are there in total?"))
    else:
        text = rng.choice((
            f"I have {a} {things} and lose {b}. How many {things} are left?",
            f"I have {a} {things}. I give {b} to {who}. How many do I have now?",
            f"I had {a} {things} and ate {b}. How many are left?",
            f"There were {a} {things} in the box and {who} took {b}. How many are left?"))
    d.say(text, f"{answer(op, a, b)[:-1]}, so the answer is {total} {things}.")
    d.last_result = total


def three_numbers_turn(d: Dialogue):
    rng = d.rng
    a, b, c = (rng.randint(1, 20) for _ in range(3))
    shape = rng.choice(("{a} + {b} + {c}", "{a}+{b}+{c}", "{a} plus {b} plus {c}")).format(a=a, b=b, c=c)
    text = rng.choice(_ASKS).format(e=shape)
    d.say(text[0].upper() + text[1:], f"{a} + {b} = {a + b}, and {a + b} + {c} = {a + b + c}.")
    d.last_result = a + b + c


def compare_turn(d: Dialogue):
    rng = d.rng
    a, b = rng.sample(range(100), 2)
    high, low = max(a, b), min(a, b)
    kind = rng.randrange(4)
    if kind == 0:
        d.say(rng.choice((f"Which is bigger, {a} or {b}?", f"Which number is larger, {a} or {b}?",
                          f"What is more, {a} or {b}?", f"What's bigger: {a} or {b}?")),
              f"{high} is bigger than {low}.")
    elif kind == 1:
        d.say(rng.choice((f"Which is smaller, {a} or {b}?", f"What's smaller: {a} or {b}?",
                          f"Which number is less, {a} or {b}?")), f"{low} is smaller than {high}.")
    elif kind == 2:
        d.say(rng.choice((f"Is {a} even or odd?", f"Is {a} an even number?", f"Is {a} odd?")),
              f"{a} is {'odd' if a % 2 else 'even'}.")
    else:
        if rng.random() < 0.5:
            d.say(rng.choice((f"What comes after {a}?", f"Which number comes after {a}?", f"What is {a} plus one?",
                              f"What number follows {a}?")), f"{a + 1} comes after {a}.")
        else:
            d.say(rng.choice((f"What comes before {b + 1}?", f"Which number comes before {b + 1}?")),
                  f"{b} comes before {b + 1}.")


def sort_turn(d: Dialogue):
    rng = d.rng
    numbers = rng.sample(range(rng.choice((10, 30, 100))), rng.randint(3, 6))
    listed = rng.choice((", ", " ")).join(map(str, numbers))
    if rng.random() < 0.7:
        d.say(rng.choice((f"Sort {listed}.", f"Sort these numbers: {listed}", f"Put {listed} in order.",
                          f"Can you sort {listed}?")), ", ".join(map(str, sorted(numbers))) + ".")
    else:
        d.say(rng.choice((f"What is the largest of {listed}?", f"Which is the biggest: {listed}?",
                          f"Find the maximum of {listed}.")), f"The largest is {max(numbers)}.")
