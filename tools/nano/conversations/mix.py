"""How the families of turns are put together into whole conversations."""

from random import Random

from . import (arithmetic, documents, json_answers, knowledge, long_answers, recall, smalltalk, text_tasks, tool_use)
from .dialogue import Dialogue

_TURNS = (
    (14, smalltalk.chat_turn), (2, smalltalk.beyond_turn),
    (18, recall.tell_turn), (26, recall.ask_turn), (2, recall.change_turn), (1, recall.quote_turn),
    (22, arithmetic.sum_turn), (2, arithmetic.follow_up_turn), (2, arithmetic.story_problem_turn),
    (1, arithmetic.three_numbers_turn), (1, arithmetic.compare_turn), (1, arithmetic.sort_turn),
    (5, knowledge.knowledge_turn),
    (5, text_tasks.repeat_turn), (2, text_tasks.hello_to_turn), (1, text_tasks.spell_turn),
    (1, json_answers.invented_turn), (2, json_answers.filled_turn), (1, json_answers.pairs_turn),
    (1, json_answers.array_turn),
)
_LONG_TURNS = ((5, long_answers.count_turn), (2, long_answers.fixed_list_turn), (2, long_answers.items_turn), (3, long_answers.story_turn), (1, long_answers.poem_turn))


def _table(*tables):
    weights, turns = zip(*(row for table in tables for row in table))
    return turns, weights


_SHORT = _table(_TURNS)
_ALL = _table(_TURNS, _LONG_TURNS)


def _chat(d: Dialogue, turns: int, long_answers_too: bool = True):
    functions, weights = _ALL if long_answers_too else _SHORT
    if d.rng.random() < 0.25:
        smalltalk.greeting_turn(d)
    for turn in d.rng.choices(functions, weights, k=turns):
        turn(d)
    if d.facts and d.rng.random() < 0.7:
        recall.ask_turn(d)


def _drill(d: Dialogue, turns: int):
    """Sums, or telling and asking, one after the other: the densest practice there is."""
    turn = d.rng.choice((arithmetic.sum_turn, arithmetic.sum_turn, text_tasks.repeat_turn))
    for _ in range(turns):
        turn(d)


def _tool_drill(d: Dialogue):
    """Call after call among invented tools: the choice of a name and of a value's type, as densely as a row holds it."""
    tools = tool_use.offer_tools(d, d.rng.choice((1, 2, 3, 3, 4)), invented=0.85)
    for _ in range(d.rng.randint(3, 6)):
        tool_use.call_turn(d, tools)


def _with_tools(d: Dialogue, turns: int):
    rng = d.rng
    tools = tool_use.offer_tools(d, rng.choice((1, 2, 2, 3, 3, 4)), invented=0.6)
    if rng.random() < 0.3:
        smalltalk.system_prompt(d)
    for _ in range(turns):
        if rng.random() < 0.7:
            tool_use.tool_turn(d, tools)
        else:
            _plain_turn_beside(d, tools)


def _plain_turn_beside(d: Dialogue, tools):
    """A turn that needs none of the offered tools."""
    rng = d.rng
    names = {t.asks for t in tools}
    sums_offered = any(t.result_kind == "sum" for t in tools)
    turn = rng.choices((smalltalk.chat_turn, recall.tell_turn, recall.ask_turn, arithmetic.sum_turn, text_tasks.repeat_turn), (10, 6, 6, 5, 2))[0]
    if turn is arithmetic.sum_turn and sums_offered:
        turn = recall.tell_turn
    if turn is smalltalk.chat_turn and len(names) and any(k in t.result_kind for t in tools for k in ("weather", "time", "text")):
        turn = smalltalk.greeting_turn
    turn(d)


def conversation(rng: Random, size: float = 1.0, held_out: bool = False) -> Dialogue:
    """One conversation. `size` from 0 to 1 lets it grow, so that training can begin with short ones."""
    while True:
        d = Dialogue(rng, held_out)
        longest = 1 + int(9 * size)
        turns = min(rng.choice((1, 1, 1, 2, 2, 2, 3, 3, 4, 5, 7, 10)), longest)
        if size >= 1 and rng.random() < 0.04:
            turns = rng.randint(10, 24)
        # The long families wait until the short ones have taught the model to copy.
        kind = rng.choices(range(8), (16, 12 + 38 * size, 1 + 3 * size, 2 * size, 1, 1 + 3 * size, 50, 50 * size))[0]
        if kind == 0:
            _drill(d, min(rng.randint(2, 8), 2 * longest))
        elif kind == 1:
            _with_tools(d, min(rng.choice((1, 2, 3, 3, 4, 5)), longest))
        elif kind == 2:
            documents.people_turns(d)
            _chat(d, turns // 2, False)
        elif kind == 3:
            documents.hidden_detail_turns(d, 2 + int(30 * size * rng.random() ** 2))
            _chat(d, turns // 3, False)
        elif kind == 4:
            name = smalltalk.persona_prompt(d)
            smalltalk.persona_turn(d, name)
            _chat(d, turns // 2, False)
        elif kind == 5:
            rng.choices(*_table(_LONG_TURNS))[0](d)
            _chat(d, turns // 3, False)
        elif kind == 6:
            if rng.random() < 0.3:
                smalltalk.system_prompt(d)
            if rng.random() < 0.12:
                recall.tell_turn(d, "name")
            _chat(d, turns, size > 0.3)
        else:
            _tool_drill(d)
        if any(m["role"] == "assistant" for m in d.messages):
            return d
