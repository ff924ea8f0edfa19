"""Short texts in the prompt: questions about them, summaries, action items."""

from __future__ import annotations

from random import Random

from training.data.banks import value
from training.data.core import Talk, chance, in_split

__all__ = ["text_talk"]

# A text with slots (`name:kind`), its summary, its action items, and questions with their answers.
_TEXTS: tuple[tuple[dict[str, str], str, str, str, tuple[tuple[str, str], ...]], ...] = (
    ({"p": "person", "q": "person", "d": "weekday", "t": "clock", "e": "event"}, "Hi {q}, the {e} is now on {d} at {t}. Please bring the printed plan and tell Rosa. Best, {p}",
     "{p} tells {q} that the {e} is now on {d} at {t}, and asks for the printed plan.", "- Bring the printed plan on {d} at {t}\n- Tell Rosa",
     (("When is the {e}?", "It is on {d} at {t}."), ("Who wrote the message?", "{p} wrote it."), ("What should {q} bring?", "The printed plan."), ("Who else has to be told?", "Rosa."))),
    ({"s": "Made_up", "n": "int(12,90)", "c": "city", "y": "int(1890,2020)"}, "{s} Bakery opened in {c} in {y}. It bakes {n} kinds of bread and delivers to schools by bicycle. It is closed on Mondays.",
     "{s} Bakery in {c}, open since {y}, bakes {n} kinds of bread and delivers by bicycle.", "- No action items",
     (("When did {s} Bakery open?", "It opened in {y}."), ("Where is the bakery?", "It is in {c}."), ("How many kinds of bread does it bake?", "It bakes {n} kinds of bread."), ("On which day is it closed?", "It is closed on Mondays."), ("How does it deliver?", "By bicycle."))),
    ({"p": "person", "a": "product", "n": "int(20,400)", "o": "id"}, "Order {o} for the {a} arrived damaged. {p} asks for a refund of {n} euros by Friday and has sent two photos.",
     "The {a} of order {o} arrived damaged, and {p} wants {n} euros back by Friday.", "- Refund {n} euros by Friday\n- Look at the two photos",
     (("What is the order number?", "The order number is {o}."), ("How much is the refund?", "{n} euros."), ("Who asks for a refund?", "{p} does."), ("What arrived damaged?", "The {a}."))),
    ({"c": "city", "n": "int(15,70)", "m": "int(10,55)", "t": "clock"}, "The bus from {c} leaves at {t} from platform {n}. The trip takes {m} minutes, and bicycles cost 3 euros extra.",
     "A bus leaves {c} at {t} from platform {n} and takes {m} minutes.", "- Be at platform {n} before {t}",
     (("Which platform does the bus leave from?", "It leaves from platform {n}."), ("How long does the trip take?", "It takes {m} minutes."), ("When does the bus leave?", "At {t}."), ("What does a bicycle cost?", "3 euros extra."))),
    ({"p": "person", "q": "person", "r": "person", "d": "weekday", "b": "int(2,90)"}, "In today's meeting we agreed that {p} writes the report and {q} checks the budget of {b},000 euros. {r} books a room for {d}.",
     "{p} writes the report, {q} checks the budget of {b},000 euros, and {r} books a room for {d}.", "- {p}: write the report\n- {q}: check the budget\n- {r}: book a room for {d}",
     (("Who writes the report?", "{p} writes it."), ("Who books the room?", "{r} does."), ("How large is the budget?", "{b},000 euros."), ("What does {q} do?", "{q} checks the budget."), ("For which day is the room booked?", "For {d}."))),
    ({"s": "Made_up", "h": "int(300,4200)", "c": "country", "p": "person"}, "Mount {s} in {c} is {h} metres high. {p} was the first to climb it, in winter, together with two friends.",
     "Mount {s} in {c}, {h} metres high, was first climbed by {p} with two friends.", "- No action items",
     (("How high is Mount {s}?", "It is {h} metres high."), ("Who climbed it first?", "{p} did."), ("In which country is it?", "It is in {c}."), ("How many friends came along?", "Two friends."))),
    ({"p": "person", "f": "file", "t": "clock", "e": "email"}, "Dear team, the server will be down tonight from {t}. Save your work before then. The plan is in {f}; questions go to {e}. {p}",
     "The server is down tonight from {t}; everyone should save their work before.", "- Save your work before {t}\n- Send questions to {e}",
     (("When will the server be down?", "Tonight from {t}."), ("Where is the plan?", "It is in {f}."), ("Where do questions go?", "To {e}."), ("What should the team do?", "Save their work before {t}."))),
    ({"w": "int(6,36)", "s": "Made_up", "n": "int(7,60)", "b": "one(receipt|invoice|order number)"}, "The {s} warranty lasts {w} months. To return a product, send it back within {n} days together with the {b}. Opened food can't be returned.",
     "{s} products have {w} months of warranty and can be returned within {n} days with the {b}.", "- Send the product back within {n} days with the {b}",
     (("How long is the warranty?", "It lasts {w} months."), ("Within how many days can I return a product?", "Within {n} days."), ("What must I send along?", "The {b}."), ("Can I return opened food?", "No, opened food can't be returned."))),
    ({"p": "person", "a": "animal", "c": "color", "s": "address", "h": "phone"}, "Lost: a small {a} with a {c} collar, last seen near {s}. It is shy but friendly. Please call {p} at {h}.",
     "{p} is looking for a small, shy {a} with a {c} collar that was last seen near {s}.", "- Call {p} at {h} if you see the {a}",
     (("What colour is the collar?", "It is {c}."), ("Where was it last seen?", "Near {s}."), ("Which number should I call?", "Call {h}."), ("What animal is lost?", "A small {a}."))),
    ({"p": "person", "k": "dish", "n": "int(4,30)", "d": "weekday", "s": "address"}, "{p} is having a party on {d} at {s}. {n} people are coming. There will be {k}; bring something to drink and a game.",
     "{p} has a party with {n} guests on {d} at {s}.", "- Bring something to drink\n- Bring a game",
     (("Where is the party?", "At {s}."), ("How many people are coming?", "{n} people are coming."), ("What will there be to eat?", "There will be {k}."), ("When is the party?", "On {d}."))),
)  # fmt: skip
_QUESTION_FRAMES = ("{t}\n\n{q}", "Text: {t}\n\nQuestion: {q}", "{q}\n\n{t}", "Answer from the text. {t} {q}", "Read this: \"{t}\" {q}", "Context:\n{t}\n\n{q}", "Here is a text: {t}\n{q} Answer briefly.", "{t}\nAccording to this, {q}")
_SUMMARY_FRAMES = ("Summarize this: {t}", "Sum this up in one sentence: {t}", "{t}\n\nSummarize.", "What is this about? {t}", "Give me a short summary:\n{t}", "tl;dr: {t}", "Summarise the following message in one sentence.\n\n{t}", "Can you shorten this? {t}", "What does this say in brief? {t}")
_ACTION_FRAMES = ("List the action items: {t}", "What has to be done? {t}", "Extract the tasks from this message:\n{t}", "{t}\n\nAction items?", "Which to-dos are in here? {t}", "Make a to-do list from this: {t}")
_ABSENT = ("What colour is the door?", "How much does the parking cost?", "Who is the mayor?", "What is the wifi password?", "How old is the director?")
_UNSAID = ("The text doesn't say.", "That isn't in the text.", "The text does not tell.", "I can't find that in the text.")


def text_talk(rng: Random, split: str) -> Talk:
    """One text with a question about it, or its summary or tasks, sometimes with a second question."""
    kinds, text, summary, tasks, questions = rng.choice(_TEXTS)
    slots = {name: str(value(rng, split, kind)) for name, kind in kinds.items()}
    text = text.format(**slots)
    talk = Talk()
    pick = rng.random()
    if pick < 0.22:
        frames, answer = _SUMMARY_FRAMES, summary
    elif pick < 0.36 and "No action" not in tasks:
        frames, answer = _ACTION_FRAMES, tasks
    else:
        question, answer = (rng.choice(_ABSENT), rng.choice(_UNSAID)) if chance(rng, 0.08) else rng.choice(questions)
        frames = tuple(frame.replace("{q}", question) for frame in (in_split(_QUESTION_FRAMES, split) or _QUESTION_FRAMES[:1]))
        talk.user(rng.choice(frames).replace("{t}", text).format(**slots))
        talk.say(answer.format(**slots))
        if chance(rng, 0.4):
            question, answer = rng.choice([q for q in questions if q[0] != question] or questions)
            talk.user(rng.choice(("{q}", "And {q}", "{q}", "One more: {q}")).replace("{q}", question).format(**slots))
            talk.say(answer.format(**slots))
        return talk
    talk.user(rng.choice(in_split(frames, split) or frames[:1]).replace("{t}", text))
    talk.say(answer.format(**slots))
    return talk
