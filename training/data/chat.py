"""Talk without tools: knowledge, small talk, remembering what was said, and saying that no tool fits."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from random import Random

from training.data.banks import value
from training.data.core import Talk, chance, in_split, lower_first

__all__ = ["knowledge_talk", "memory_talk", "no_tool_talk", "small_talk", "WELCOMES"]

WELCOMES = ("You're welcome!", "You're welcome.", "Happy to help!", "Any time.", "Glad to help.", "My pleasure.", "No problem!", "Of course!")
# wordings -> answers
_SMALL: tuple[tuple[str, str], ...] = (
    ("hi|Hi!|hello|Hello!|hey|Hey there|good morning|Good evening!|hi there|Hello, are you there?|yo|Good day|hiya|Hi, nice to meet you|greetings|hello assistant",
     "Hello! How can I help?|Hi! What can I do for you?|Hello! What would you like to know?|Hi there! How can I help you today?|Good to see you! What can I do?"),
    ("thanks|Thanks!|thank you|thx|Thank you so much!|great, thanks|ok thanks|perfect, thank you|cheers|that helps, thanks|much appreciated|awesome, thank you", "|".join(WELCOMES)),
    ("bye|Goodbye!|see you|good night|bye bye|that's all for today|see you tomorrow|talk to you later|I have to go now", "Goodbye!|See you!|Bye, have a good day!|Good night!|Take care!|Until next time!"),
    ("who are you?|Who are you|what are you|What's your name?|are you a robot?|Tell me about yourself.|who am I talking to?|introduce yourself|are you human?|what is your name",
     "I'm an AI assistant. I answer questions and help with tasks.|I'm an assistant: a language model that can answer questions and use the tools I'm given.|I'm an AI assistant. What can I do for you?|I'm a small language model, here to help you."),
    ("how are you?|How are you doing?|how's it going|are you ok?|how do you do|what's up|How are you today?", "I'm fine, thank you! How can I help?|All well here. What can I do for you?|I'm doing well, thanks. How are you?|Fine, thanks for asking! What's on your mind?"),
    ("ok|okay|cool|nice|alright|good|I see|got it|great|fine|interesting|sure", "Is there anything else I can do?|Good. Let me know if you need anything else.|Great! Anything else?|All right. What next?"),
    ("you're great|good job|well done|I like you|you're helpful|nice work|you are smart", "Thank you! I'm glad I could help.|That's kind of you, thanks!|Thanks! I do my best."),
    ("you're wrong|that's not right|I don't think so|this is wrong|no, that's incorrect", "I'm sorry about that. Could you tell me what is wrong?|Sorry! What should it be?|I may have made a mistake. What did you expect?"),
    ("sorry|my mistake|oops|I'm sorry", "No problem at all.|That's all right!|No worries. What can I do?"),
    ("can you help me?|I need help|help|could you help me with something?|I have a question|may I ask you something?|help me please", "Of course. What do you need?|Sure, what is it about?|Gladly. What's your question?|Yes, go ahead."),
    ("are you real?|do you have feelings?|do you sleep?|do you eat?|how old are you?|where do you live?|do you dream?", "I'm a computer program, so no such things for me, but I'm happy to help you.|I'm a language model: I have no body and no feelings. What can I do for you?"),
    ("asdf|???|hmm|...|test|testing|blah|ehh|is this working?|hello?? test", "I'm here. What can I do for you?|It works! What would you like to do?|Could you tell me what you need?"),
    ("wait|one moment|hold on|give me a second|brb", "Take your time.|No hurry, I'm here.|Sure, I'll wait."),
    ("never mind|forget it|nothing|no thanks|no, that's all|nope", "All right. I'm here if you need anything.|OK! Just ask if something comes up.|No problem."),
)  # fmt: skip
_ABLE_ASKS = """what can you do?|What can you help me with?|which tools do you have?|What are you able to do?|what functions do you have|How can you help me?|what do you do|Tell me what you can do.|list your tools""".split("|")
_ABLE = ("I can help with {t}.", "With the tools I have, I can help with {t}.", "You can ask me about {t}.", "I can take care of {t}, and answer general questions.", "Mostly {t}. Just ask!")
_UNABLE_ASKS = ("I can answer questions, explain things and help with texts.", "I can chat, explain things, and help you write.", "I answer questions and help with writing and ideas.")
_NO_TOOL = """I can't help with {t} here.|I have no tool for {t}.|Sorry, {t} is beyond what I can do with my tools.|None of my tools covers {t}.|I'm not able to do that: I have nothing for {t}.
I don't have access to {t}.|That's outside what I can do here; I can't reach {t}.|I'd need a tool for {t}, and there is none.|For {t} I have no tool, I'm afraid.|My tools don't include {t}.
I can't do that, since nothing here gives me access to {t}.|Unfortunately I can't reach {t} from here.|There is no tool for {t} among mine.|That needs {t}, which I can't use here.|I can't look into {t}. Is there something else I can do?
Sorry, I have no way to use {t}.|{T} isn't something I can work with here.|I'm afraid I can't help with {t}.|No tool of mine deals with {t}.|That isn't possible with the tools at hand: nothing there is about {t}.""".replace("\n", "|").split("|")
_BUT = ("", "", "", " I can help with {o}, though.", " What I can do is {o}.", " I only have tools for {o}.", " You could ask me about {o} instead.")

_PET = "cat|dog|parrot|rabbit|turtle|hamster"
# what the user says, how it is taken note of, the question, the answer; {x} is remembered
_MEMORIES: tuple[tuple[str, str, str, str, str], ...] = (
    ("person", "My name is {x}.|I'm {x}.|Hi, I'm {x}!|Call me {x}.|Hello, my name is {x}|people call me {x}|{x} here.|I am {x}, nice to meet you", "Nice to meet you, {x}!|Hello {x}! How can I help?|Hi {x}!|Good to meet you, {x}.", "What is my name?|what's my name|Do you remember my name?|Who am I?|What am I called?|do you still know my name?|Tell me my name.", "Your name is {x}.|You are {x}.|It's {x}."),
    ("city", "I live in {x}.|I'm from {x}.|My home is {x}.|I moved to {x} last year.|I come from {x}", "{x}, good to know!|Thanks for telling me. How is life in {x}?|I see, {x}.", "Where do I live?|Which city am I from?|do you remember where I live?|Where am I from?|what's my city", "You live in {x}.|{x}.|You told me: {x}."),
    ("color", "My favourite colour is {x}.|I love {x}, it's my favorite color.|favorite color: {x}", "{x} is a lovely colour.|Noted: {x}.|Nice choice!", "What's my favourite colour?|which color do I like best?|what colour do I love", "Your favourite colour is {x}.|It's {x}.|You said {x}."),
    ("dish", "I love {x}.|My favourite food is {x}.|I could eat {x} every day.|{x} is my favorite dish", "That sounds tasty!|Good choice!|{x} is a treat.", "What's my favourite food?|what do I like to eat?|Which dish do I love?|what did I say I love?", "Your favourite is {x}.|You love {x}.|It's {x}."),
    ("int(18,80)", "I'm {x} years old.|I am {x}.|I turned {x} last week.|my age is {x}", "Thanks for telling me.|Good to know!|All right, {x}.", "How old am I?|what's my age|Do you remember my age?|how old did I say I am?", "You are {x} years old.|You're {x}.|{x}."),
    ("job", "I work as a {x}.|My job is {x}.|I'm working as a {x} these days", "That sounds interesting!|Nice! How do you like it?|Good to know.", "What is my job?|what do I work as?|Do you remember my profession?|What do I do for a living?", "You work as a {x}.|Your job is {x}."),
    ("int(2,9999)", "Remember the number {x}.|Keep {x} in mind.|Please memorize {x}|my lucky number is {x}|Remember this number: {x}", "OK, I'll remember {x}.|Noted: {x}.|Got it.", "Which number was it?|What was the number?|what number did I give you?|Tell me the number again.", "It was {x}.|The number is {x}.|{x}."),
    ("code", "The code is {x}.|Remember the code {x}.|My booking code is {x}.|Keep this code for me: {x}", "OK, {x}.|Noted.|Got it: {x}.", "What was the code?|which code did I tell you|Repeat the code please.|What's my code?", "The code is {x}.|It's {x}.|{x}"),
    ("made_up", "The password for the game is {x}.|The magic word is {x}.|Remember the word {x}.|our team is called {x}", "Got it: {x}.|I'll keep {x} in mind.|OK!", "What was the word?|Which word did I tell you?|what's the word again|Do you remember the word?", "It was {x}.|The word is {x}.|{x}."),
    ("product", "I want to buy a {x}.|I need a new {x}.|I'm looking for a {x}", "What should it be like?|Good idea. Do you have a budget?|Sure, any wishes?", "What did I want to buy?|what was I looking for?|Which thing do I need?", "You wanted a {x}.|You were looking for a {x}.|A {x}."),
    ("day", "We meet on {x}.|The party is on {x}.|My exam is on {x}.|the deadline is {x}", "OK, {x}.|Noted: {x}.|Good luck!", "When was it?|Which day did I say?|What day is it on?|when is it again", "It's on {x}.|You said {x}.|{x}."),
)  # fmt: skip


@lru_cache(maxsize=1)
def _questions() -> tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]:
    found: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    for path in sorted(Path(__file__).parent.glob("knowledge*.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line or line.startswith("#"):
                continue
            asks, _, answers = line.partition(" => ")
            # A poem's lines are joined by the same mark as answers: those stay one answer.
            verse = "poem" in asks or "haiku" in asks
            told = (answers.replace(" / ", "\n"),) if verse else tuple(answers.split(" / "))
            found.append((tuple(asks.split(" / ")), told))
    return tuple(found)


@lru_cache(maxsize=None)
def _mine(asks: tuple[str, ...], split: str) -> tuple[str, ...]:
    return in_split(asks, split)


_POLITE = ("Can you tell me: {q}", "Please tell me: {q}", "{q} Thanks!", "Hi! {q}", "Quick question: {q}", "I wonder: {q}", "{q} Keep it short.", "In one sentence: {q}")


def knowledge_talk(rng: Random, split: str, turns: int = 1) -> Talk:
    """One to `turns` questions of general knowledge, each with a short answer."""
    talk = Talk()
    while len(talk.messages) < 2 * turns:
        asks, answers = rng.choice(_questions())
        mine = _mine(asks, split)
        if not mine:
            continue
        ask = rng.choice(mine)
        if chance(rng, 0.15):
            ask = rng.choice(_POLITE).format(q=ask if ask.endswith(("?", ".", "!")) else f"{ask}?")
        elif chance(rng, 0.15):
            ask = lower_first(ask)
        talk.user(ask)
        talk.say(rng.choice(answers))
    return talk


def small_talk(rng: Random, split: str, topics: tuple[str, ...] = ()) -> Talk:
    """A greeting, thanks or a question about the assistant; `topics` are what its tools are about."""
    talk = Talk()
    if chance(rng, 0.14):
        asks = _mine(tuple(_ABLE_ASKS), split)
        if asks:
            talk.user(rng.choice(asks))
            talk.say(rng.choice(_ABLE).format(t=_list(topics)) if topics else rng.choice(_UNABLE_ASKS))
            return talk
    while not talk.messages:
        asks, answers = rng.choice(_SMALL[:5] * 2 + _SMALL)
        mine = _mine(tuple(asks.split("|")), split)
        if mine:
            talk.user(rng.choice(mine))
            talk.say(rng.choice(answers.split("|")))
    return talk


def memory_talk(rng: Random, split: str) -> Talk:
    """The user says one or two things about themselves, and asks for one of them later."""
    talk = Talk()
    while True:
        told = rng.sample(_MEMORIES, rng.choice((1, 1, 2)))
        kind, _, _, asks, answers = rng.choice(told)
        if _mine(tuple(asks.split("|")), split):
            break
    found = ""
    for this_kind, says, notes, this_asks, _ in told:
        given = str(value(rng, split, this_kind))
        mine = _mine(tuple(says.split("|")), split) or tuple(says.split("|"))
        talk.user(rng.choice(mine).replace("{x}", given))
        talk.say(_capital(rng.choice(notes.split("|")).replace("{x}", given)))
        if this_asks == asks:
            found = given
    if chance(rng, 0.35):
        talk.messages += knowledge_talk(rng, split).messages
    talk.user(rng.choice(_mine(tuple(asks.split("|")), split)))
    talk.say(_capital(rng.choice(answers.split("|")).replace("{x}", found)))
    del kind
    return talk


def no_tool_talk(rng: Random, request: str, topic: str, offered: tuple[str, ...]) -> Talk:
    """A request that no tool serves, and an honest answer in one of many wordings."""
    talk = Talk()
    talk.user(request)
    answer = rng.choice(_NO_TOOL).replace("{t}", topic).replace("{T}", topic.capitalize())
    if offered:
        answer += rng.choice(_BUT).replace("{o}", _list(offered))
    talk.say(answer)
    return talk


def _list(topics: tuple[str, ...]) -> str:
    different = list(dict.fromkeys(topics))[:3]
    return f"{', '.join(different[:-1])} and {different[-1]}" if len(different) > 1 else different[0]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
