"""Tasks for the code interpreter beyond sums: numbers, lists, words, dates, units, money, and programs that fail.

A `Task` is wordings, a program and answers over the same slots; `x` in an answer is what the program printed.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from training.data.arithmetic import follow_up
from training.data.banks import value
from training.data.core import Talk, chance, in_split, joined, made_up
from training.data.programs import run

__all__ = ["task_branch"]

Slots = Mapping[str, str]
Maker = Callable[[Random, str], Slots]


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of task: its wordings, its program and its answers, all with slots that `make` fills."""

    make: Maker
    asks: str
    code: str
    says: str
    yes: str = ""
    """The answers where the program prints True; `says` then holds those for False."""


def _n(low: int, high: int) -> Maker:
    return lambda rng, _: {"n": str(rng.randint(low, high))}


def _two(low: int, high: int) -> Maker:
    return lambda rng, _: {"n": str(rng.randint(low, high)), "m": str(rng.randint(low, high))}


def _numbers(rng: Random, _: str) -> Slots:
    count, most = rng.choice((3, 4, 4, 5, 5, 6, 7, 8)), rng.choice((9, 20, 99, 99, 999, 5000))
    items = [str(rng.randint(1, most)) for _ in range(count)]
    if chance(rng, 0.15):
        items = [f"{item}.{rng.choice((5, 25, 75, 4))}" for item in items]
    shown = rng.choice((", ".join(items), " ".join(items), joined(items), f"[{', '.join(items)}]"))
    return {"shown": shown, "list": f"[{', '.join(items)}]", "k": str(rng.randint(2, most))}


def _word(rng: Random, split: str) -> Slots:
    word = str(value(rng, split, "word"))
    word = word.capitalize() if chance(rng, 0.08) else word
    letter = rng.choice(word.lower()) if chance(rng, 0.85) else rng.choice("abcdefghijklmnopqrstuvwxyz")
    return {"w": word, "c": letter, "k": str(rng.randint(1, len(word)))}


def _two_words(rng: Random, split: str) -> Slots:
    first = str(value(rng, split, "word"))
    other = "".join(rng.sample(first, len(first))) if chance(rng, 0.5) else str(value(rng, split, "word"))
    return {"w": first, "v": other}


def _palindrome(rng: Random, split: str) -> Slots:
    real = "level|radar|rotor|civic|kayak|noon|refer|madam|racecar|stats".split("|")
    return {"w": rng.choice(real) if chance(rng, 0.4) else str(value(rng, split, "word"))}


_LINES = """the quick brown fox jumps over the lazy dog|we meet at the old bridge at noon|all the lights in the house are off|a stitch in time saves nine
the rain fell softly on the roof|she sells sea shells by the shore|every cloud has a silver lining|bring your own cup and a warm coat
the train to Porto leaves at six|practice makes perfect|good things come to those who wait|my neighbour grows tomatoes on the balcony
there is no place like home|time flies when you are having fun|the cat sat on the mat and slept""".replace("\n", "|").split("|")


def _line(rng: Random, split: str) -> Slots:
    mine = in_split(_LINES, split) or tuple(_LINES)
    line = rng.choice(mine)
    words = line.split()
    return {"s": line, "w": rng.choice(words), "v": str(value(rng, split, "word"))}


def _names(rng: Random, split: str) -> Slots:
    kind = rng.choice(("person", "person", "city", "food", "word", "animal", "color"))
    items = [str(item) for item in value(rng, split, f"some({kind})")]  # type: ignore[union-attr]
    while len(items) < 3:
        items.append(made_up(rng, split))
    shown = rng.choice((", ".join(items), joined(items)))
    return {"shown": shown, "list": repr(items)}


_MONTHS = "January February March April May June July August September October November December".split()


def _day(rng: Random, low: int = 1950, high: int = 2030) -> datetime.date:
    return datetime.date(rng.randint(low, high), rng.randint(1, 12), rng.randint(1, 28))


def _said_day(rng: Random, day: datetime.date) -> str:
    month = _MONTHS[day.month - 1]
    return rng.choice((f"{day.day} {month} {day.year}", f"{month} {day.day}, {day.year}", day.isoformat(), f"{day.day}.{day.month}.{day.year}"))


def _code_day(day: datetime.date) -> str:
    return f"date({day.year}, {day.month}, {day.day})"


def _dates(rng: Random, _: str) -> Slots:
    first = _day(rng, 2000)
    second = first + datetime.timedelta(days=rng.choice((rng.randint(5, 60), rng.randint(60, 400), rng.randint(400, 4000))))
    n = rng.choice((7, 10, 30, 45, 60, 90, 100, rng.randint(2, 500)))
    return {"s1": _said_day(rng, first), "d1": _code_day(first), "s2": _said_day(rng, second), "d2": _code_day(second), "n": str(n)}


def _clocks(rng: Random, _: str) -> Slots:
    start = rng.randint(0, 1200)
    end = start + rng.randint(5, 239 if start > 1199 else 1439 - start)
    return {"t1": f"{start // 60:02d}:{start % 60:02d}", "t2": f"{end // 60:02d}:{end % 60:02d}",
            "c1": f"{start // 60} * 60 + {start % 60}", "c2": f"{end // 60} * 60 + {end % 60}"}  # fmt: skip


def _year(rng: Random, _: str) -> Slots:
    return {"n": str(rng.choice((rng.randint(1900, 2100), rng.choice((1900, 2000, 2024, 2028, 2100)))))}


def _amount(rng: Random) -> str:
    return rng.choice((str(rng.randint(5, 300)), str(rng.randint(1, 90) * 50), f"{rng.uniform(3, 250):.2f}".rstrip("0").rstrip(".")))


def _bill(rng: Random, _: str) -> Slots:
    return {"a": _amount(rng), "p": str(rng.choice((5, 8, 10, 12, 15, 18, 20, 25, rng.randint(2, 40)))), "n": str(rng.randint(2, 9)),
            "b": _amount(rng), "c": _amount(rng), "who": rng.choice(("euros", "dollars", "pounds", "kroner"))}  # fmt: skip


def _interest(rng: Random, _: str) -> Slots:
    return {"a": str(rng.randint(1, 200) * 100), "p": str(rng.choice((1, 2, 2.5, 3, 3.5, 4, 5, 6, 7))), "n": str(rng.randint(2, 30))}


def _story(rng: Random, split: str) -> Slots:
    a, b, c, d = rng.randint(2, 60), rng.randint(2, 30), rng.randint(2, 25), rng.randint(2, 12)
    return {"a": str(a), "b": str(b), "c": str(c), "d": str(d), "big": str(a * b + c + rng.randint(5, 200)),
            "who": str(value(rng, split, "person")), "thing": rng.choice(("apples", "pencils", "stickers", "marbles", "cards", "eggs", "tiles", "books")),
            "price": rng.choice((str(rng.randint(2, 40)), f"{rng.uniform(1, 30):.2f}".rstrip("0").rstrip(".")))}  # fmt: skip


def _measure(rng: Random, _: str) -> Slots:
    text = str(rng.choice((rng.randint(1, 20), rng.randint(20, 500), rng.randint(500, 9000))))
    return {"a": f"{text}.{rng.randint(1, 9)}" if chance(rng, 0.25) else text}


_UNITS: tuple[tuple[str, str, str, str], ...] = (
    ("km|kilometers|kilometres", "miles", "{a} * 0.621371", "2"), ("miles", "km|kilometers", "{a} * 1.609344", "2"),
    ("kg|kilograms|kilos", "pounds|lb", "{a} * 2.204623", "2"), ("pounds|lb", "kg|kilograms", "{a} * 0.453592", "2"),
    ("Celsius|degrees Celsius|°C", "Fahrenheit", "{a} * 9 / 5 + 32", "1"), ("Fahrenheit|degrees Fahrenheit|°F", "Celsius", "({a} - 32) * 5 / 9", "1"),
    ("inches", "cm|centimeters", "{a} * 2.54", "2"), ("cm|centimeters", "inches", "{a} / 2.54", "2"), ("feet", "meters|metres", "{a} * 0.3048", "2"),
    ("meters|metres", "feet", "{a} / 0.3048", "2"), ("gallons", "liters|litres", "{a} * 3.785412", "2"), ("liters|litres", "gallons", "{a} / 3.785412", "2"),
    ("ounces", "grams", "{a} * 28.349523", "2"), ("hours", "minutes", "{a} * 60", "2"), ("minutes", "seconds", "{a} * 60", "2"), ("days", "hours", "{a} * 24", "2"),
    ("weeks", "days", "{a} * 7", "2"), ("years", "days", "{a} * 365", "2"), ("minutes", "hours", "{a} / 60", "2"), ("km/h", "m/s", "{a} / 3.6", "2"),
    ("GB", "MB", "{a} * 1024", "2"), ("hours", "seconds", "{a} * 3600", "2"),
)  # fmt: skip


def _unit(rng: Random, split: str) -> Slots:
    froms, tos, formula, places = rng.choice(_UNITS)
    slots = dict(_measure(rng, split))
    slots |= {"f": rng.choice(froms.split("|")), "t": rng.choice(tos.split("|"))}
    return slots | {"e": formula.format(a=slots["a"]), "p": places}


TASKS: tuple[Task, ...] = (
    Task(_n(2, 9999), "Is {n} prime?|is {n} a prime number?|Check whether {n} is prime.|Tell me if {n} is a prime number|prime or not: {n}|Would you say {n} is prime?|Is the number {n} a prime?|Find out if {n} is prime.|{n} - prime?",
         "n = {n}\nprint(n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1)))", "No, {n} is not prime.|{n} is not a prime number.|No, {n} isn't prime.", "Yes, {n} is prime.|{n} is a prime number.|Yes, {n} is a prime number."),
    Task(_n(3, 15), "What is {n} factorial?|{n}!|Compute the factorial of {n}.|factorial of {n}|How many ways can {n} books be ordered on a shelf?|What's {n}! equal to?", "import math\nprint(math.factorial({n}))", "{n} factorial is {x}.|{n}! is {x}.|The factorial of {n} is {x}."),
    Task(_two(4, 999), "What is the greatest common divisor of {n} and {m}?|gcd of {n} and {m}|Find the GCD of {n} and {m}.|largest number that divides both {n} and {m}|What's the highest common factor of {n} and {m}?", "import math\nprint(math.gcd({n}, {m}))", "The greatest common divisor of {n} and {m} is {x}.|It is {x}."),
    Task(_two(2, 120), "What is the least common multiple of {n} and {m}?|lcm of {n} and {m}|Find the LCM of {n} and {m}.|smallest number that both {n} and {m} divide", "import math\nprint(math.lcm({n}, {m}))", "The least common multiple of {n} and {m} is {x}.|It is {x}."),
    Task(_n(2, 5000), "What is {n} in binary?|Write {n} in binary.|convert {n} to binary|binary of {n}|How do you write {n} in base 2?", "print(bin({n})[2:])", "{n} in binary is {x}.|It is {x} in binary."),
    Task(_n(10, 65000), "What is {n} in hexadecimal?|hex of {n}|convert {n} to hex|Write {n} as a hexadecimal number.", "print(hex({n})[2:])", "{n} in hexadecimal is {x}.|It is {x}."),
    Task(_n(10, 9999999), "What is the sum of the digits of {n}?|digit sum of {n}|Add up the digits of {n}.|add the digits in {n} together", "print(sum(int(d) for d in '{n}'))", "The digits of {n} add up to {x}.|The digit sum is {x}."),
    Task(_n(10, 400), "What is the sum of the numbers from 1 to {n}?|Add up all numbers from 1 to {n}.|sum 1 to {n}|1 + 2 + ... + {n} = ?|sum of the first {n} numbers", "print(sum(range(1, {n} + 1)))", "The numbers from 1 to {n} add up to {x}.|The sum is {x}."),
    Task(_n(10, 60), "List the primes below {n}.|Which primes are smaller than {n}?|all prime numbers under {n}|Show me the prime numbers up to {n}|primes less than {n}", "print([n for n in range(2, {n}) if all(n % d for d in range(2, n))])", "The primes below {n} are {items}.|They are {items}."),
    Task(_n(6, 400), "What are the divisors of {n}?|List the divisors of {n}.|Which numbers divide {n}?|factors of {n}|all divisors of {n} please", "n = {n}\nprint([d for d in range(1, n + 1) if n % d == 0])", "The divisors of {n} are {items}.|{n} is divisible by {items}."),
    Task(_n(5, 12), "Give me the first {n} Fibonacci numbers.|first {n} fibonacci numbers|List {n} Fibonacci numbers|Show the Fibonacci sequence up to the {n}th number", "a, b = 0, 1\nfor _ in range({n}):\n    print(a, end=' ')\n    a, b = b, a + b", "The first {n} Fibonacci numbers are {spaced}.|They are {spaced}."),
    Task(_n(1, 99999), "Is {n} even?|is {n} an even number|Is {n} odd or even?|even or odd: {n}|check if {n} is even", "print({n} % 2 == 0)", "{n} is odd.", "{n} is even."),
    Task(_two(2, 60), "Is {n} divisible by {m}?|does {m} divide {n}?|Can I split {n} evenly into {m} groups?|Check if {n} can be divided by {m}", "print({n} % {m} == 0)", "No, {n} is not divisible by {m}.", "Yes, {n} is divisible by {m}."),
    Task(_n(2, 12), "Show me the multiplication table of {n} up to 5.|times table for {n}, first five|first 5 multiples of {n}|What are the first five multiples of {n}?", "print([{n} * i for i in range(1, 6)])", "The first five multiples of {n} are {items}.|They are {items}."),
    Task(lambda rng, _: {"a": str(rng.randint(1, 60)), "b": str(rng.randint(61, 400))}, "Pick a random number between {a} and {b} with seed 7.|random number from {a} to {b}, seed 7|With the seed 7, draw a number between {a} and {b}", "import random\nrandom.seed(7)\nprint(random.randint({a}, {b}))", "The number is {x}.|I drew {x}."),
    # Lists
    Task(_numbers, "What is the average of {shown}?|average of {shown}|Find the mean of {shown}.|mean: {shown}|Calculate the average of these numbers: {shown}|What's the mean value of {shown}?|I scored {shown}. What is my average?", "numbers = {list}\nprint(round(sum(numbers) / len(numbers), 2))", "The average is {x}.|The mean is {x}.|Their average is {x}."),
    Task(_numbers, "What is the sum of {shown}?|Add these up: {shown}|sum of {shown}|total of {shown}|Add {shown} together.|How much is {shown} in total?|My expenses were {shown}. What's the total?|sum up {shown}", "print(sum({list}))", "The sum is {x}.|They add up to {x}.|The total is {x}."),
    Task(_numbers, "What is the median of {shown}?|median of {shown}|Find the median: {shown}|Give me the median of {shown}.", "import statistics\nprint(statistics.median({list}))", "The median is {x}."),
    Task(_numbers, "Sort these numbers: {shown}|sort {shown}|Put {shown} in order.|Arrange {shown} from smallest to largest.|order these ascending: {shown}|Can you sort {shown}?", "print(sorted({list}))", "Sorted: {items}.|In order: {items}.|From smallest to largest: {items}."),
    Task(_numbers, "Sort {shown} from largest to smallest.|sort descending: {shown}|Put {shown} in descending order.|order {shown} from high to low", "print(sorted({list}, reverse=True))", "From largest to smallest: {items}.|Sorted: {items}."),
    Task(_numbers, "What is the largest of {shown}?|max of {shown}|Which number is the biggest: {shown}?|highest number in {shown}|Find the maximum of {shown}.", "print(max({list}))", "The largest is {x}.|The biggest number is {x}."),
    Task(_numbers, "What is the smallest of {shown}?|min of {shown}|Which is the lowest: {shown}?|Find the minimum of {shown}.|smallest number in {shown}", "print(min({list}))", "The smallest is {x}.|The lowest number is {x}."),
    Task(_numbers, "How many of {shown} are above {k}?|count the numbers over {k} in {shown}|how many of these are greater than {k}: {shown}", "print(sum(1 for n in {list} if n > {k}))", "{x} of them are above {k}.|Above {k}: {x}."),
    Task(_numbers, "What's the difference between the largest and the smallest of {shown}?|range of {shown}|Find the range of these numbers: {shown}", "numbers = {list}\nprint(round(max(numbers) - min(numbers), 6))", "The range is {x}.|The difference is {x}."),
    Task(_numbers, "Which of {shown} are even?|even numbers in {shown}|keep only the even ones: {shown}|Filter the even numbers from {shown}", "print([n for n in {list} if n % 2 == 0])", "The even ones are {items}.|Even: {items}."),
    Task(_numbers, "Reverse this list: {shown}|{shown} backwards please|Turn the order of {shown} around.", "print({list}[::-1])", "Reversed: {items}.|Backwards: {items}."),
    Task(_numbers, "Multiply all of these: {shown}|product of {shown}|What do I get when I multiply {shown} together?", "import math\nprint(round(math.prod({list}), 6))", "The product is {x}.|Multiplied together, they make {x}."),
    Task(_names, "Sort these alphabetically: {shown}|alphabetical order: {shown}|Put {shown} in alphabetical order.|sort {shown} by name|Can you alphabetize {shown}?", "print(sorted({list}, key=str.lower))", "In alphabetical order: {names}.|Sorted: {names}."),
    Task(_names, "Which is the longest word: {shown}?|longest of {shown}|Find the longest name in {shown}.|which of {shown} has the most letters?", "print(max({list}, key=len))", "The longest is {x}.|It is {x}."),
    Task(_names, "How many items are in this list: {shown}?|count these: {shown}|How many names are there? {shown}", "print(len({list}))", "There are {x}.|The list has {x} items."),
    Task(_names, "Write {shown} in capital letters.|uppercase: {shown}|make these all caps: {shown}", "print([s.upper() for s in {list}])", "In capitals: {names}.|{names}."),
    # Words
    Task(_word, "How many times does the letter {c} occur in {w}?|how many {c}'s are in {w}?|Count the letter {c} in \"{w}\".|how often does {c} appear in {w}|How many {c} in {w}?|number of {c}s in the word {w}|How many letters {c} are there in '{w}'?|count {c} in {w}", "print('{w}'.lower().count('{c}'))", "The letter {c} occurs {x} times in {w}.|{w} has {x} of the letter {c}.|There are {x} in {w}."),
    Task(_word, "Reverse the word {w}.|{w} backwards|Spell {w} backwards.|reverse '{w}'|What is {w} spelled backwards?|Turn {w} around.|write \"{w}\" in reverse", "print('{w}'[::-1])", "{w} backwards is {x}.|Reversed: {x}|It is {x}."),
    Task(_word, "How many letters does {w} have?|length of {w}|How long is the word {w}?|count the letters in {w}|How many characters are in '{w}'?|letters in {w}?", "print(len('{w}'))", "{w} has {x} letters.|The word {w} has {x} letters."),
    Task(_word, "How many vowels are in {w}?|count the vowels in {w}|vowels in \"{w}\"?|Number of vowels in the word {w}", "print(sum(c in 'aeiou' for c in '{w}'.lower()))", "{w} has {x} vowels.|There are {x} vowels in {w}."),
    Task(_word, "What is letter number {k} of {w}?|Which letter is at position {k} in {w}?|letter {k} in the word {w}", "print('{w}'[{k} - 1])", "Letter {k} of {w} is {x}.|It is {x}."),
    Task(_word, "Write {w} in capital letters.|{w} in uppercase|make {w} all caps|Uppercase {w}", "print('{w}'.upper())", "{x}|In capitals: {x}"),
    Task(_word, "Sort the letters of {w}.|letters of {w} in alphabetical order|Put the letters in {w} in order.", "print(''.join(sorted('{w}')))", "Sorted, the letters are {x}.|{x}"),
    Task(_word, "How many different letters are in {w}?|unique letters in {w}|count the distinct letters of {w}", "print(len(set('{w}'.lower())))", "{w} has {x} different letters.|There are {x}."),
    Task(_word, "Repeat the word {w} {k} times.|write {w} {k} times|{w}, {k} times in a row", "print(' '.join(['{w}'] * {k}))", "{x}"),
    Task(_palindrome, "Is {w} a palindrome?|is '{w}' a palindrome|Does {w} read the same backwards?|Check whether {w} is a palindrome.", "print('{w}' == '{w}'[::-1])", "No, {w} is not a palindrome.", "Yes, {w} is a palindrome."),
    Task(_two_words, "Are {w} and {v} anagrams?|is {v} an anagram of {w}?|Check if {w} and {v} have the same letters.|Do {w} and {v} use the same letters?", "print(sorted('{w}') == sorted('{v}'))", "No, {w} and {v} are not anagrams.", "Yes, {w} and {v} are anagrams."),
    Task(_line, "How many words are in \"{s}\"?|count the words: {s}|word count of '{s}'|How many words does this sentence have: {s}", "print(len('{s}'.split()))", "It has {x} words.|There are {x} words.|The sentence has {x} words."),
    Task(_line, "How many characters are in \"{s}\"?|count the characters in: {s}|length of the sentence '{s}'", "print(len('{s}'))", "It has {x} characters.|There are {x} characters."),
    Task(_line, "Replace {w} with {v} in \"{s}\".|change {w} to {v}: {s}|Swap the word {w} for {v} in this sentence: {s}", "print('{s}'.replace('{w}', '{v}'))", "{x}"),
    Task(_line, "Capitalize every word in \"{s}\".|title case: {s}|write this as a title: {s}", "print('{s}'.title())", "{x}"),
    Task(_line, "Reverse the order of the words in \"{s}\".|words in reverse order: {s}", "print(' '.join('{s}'.split()[::-1]))", "{x}"),
    # Dates and times
    Task(_dates, "How many days are between {s1} and {s2}?|days from {s1} to {s2}|How many days from {s1} until {s2}?|Count the days between {s1} and {s2}.|number of days between {s1} and {s2}|how long is it from {s1} to {s2} in days", "from datetime import date\nprint(({d2} - {d1}).days)", "There are {x} days between {s1} and {s2}.|It is {x} days.|{x} days."),
    Task(_dates, "What day of the week was {s1}?|Which weekday is {s1}?|weekday of {s1}|On what day does {s1} fall?|what day is {s1}", "from datetime import date\nprint({d1}.strftime('%A'))", "{s1} is a {x}.|It is a {x}.|{s1} falls on a {x}."),
    Task(_dates, "What date is {n} days after {s1}?|{n} days after {s1}|add {n} days to {s1}|Which date comes {n} days after {s1}?", "from datetime import date, timedelta\nprint({d1} + timedelta(days={n}))", "{n} days after {s1} is {x}.|It is {x}."),
    Task(_dates, "What date was {n} days before {s1}?|{n} days before {s1}|go back {n} days from {s1}", "from datetime import date, timedelta\nprint({d1} - timedelta(days={n}))", "{n} days before {s1} is {x}.|It is {x}."),
    Task(_year, "Is {n} a leap year?|is {n} leap|Was {n} a leap year?|leap year {n}?|Does {n} have a 29 February?", "import calendar\nprint(calendar.isleap({n}))", "No, {n} is not a leap year.", "Yes, {n} is a leap year."),
    Task(_clocks, "How many minutes are there between {t1} and {t2}?|minutes from {t1} to {t2}|How long is it from {t1} to {t2} in minutes?|I work from {t1} to {t2}. How many minutes is that?", "print(({c2}) - ({c1}))", "It is {x} minutes from {t1} to {t2}.|{x} minutes."),
    Task(_n(70, 5000), "How many hours and minutes are {n} minutes?|{n} minutes in hours and minutes|Express {n} minutes as hours and minutes.", "print(divmod({n}, 60))", "{n} minutes are {first} hours and {second} minutes.|That is {first} hours and {second} minutes."),
    # Units and money
    *(Task(_unit, "Convert {a} {f} to {t}.|{a} {f} in {t}|How many {t} are {a} {f}?|what is {a} {f} in {t}?|{a} {f} to {t}|How much is {a} {f} in {t}?|turn {a} {f} into {t}|I have {a} {f}, what is that in {t}?", "print(round({e}, {p}))", "{a} {f} is {x} {t}.|That is {x} {t}.|{a} {f} are {x} {t}.|It is {x} {t}."),) * 4,
    *(Task(_bill, "What is a {p}% tip on {a} {who}?|tip of {p}% on a bill of {a}|The bill is {a}. How much is a {p} percent tip?|how much tip is {p}% of {a}", "print(round({a} * {p} / 100, 2))", "A {p}% tip on {a} is {x}.|The tip is {x}."),
      Task(_bill, "The bill is {a} {who} plus {p}% tip. What's the total?|total with {p}% tip on {a}|What do I pay with a {p}% tip on {a}?|bill of {a}, tip {p}%, total?", "print(round({a} * (1 + {p} / 100), 2))", "With a {p}% tip, the total is {x}.|The total is {x}."),
      Task(_bill, "Split a bill of {a} {who} between {n} people.|We are {n} people and the bill is {a}. How much does each pay?|{a} {who} split {n} ways|share {a} {who} among {n} friends", "print(round({a} / {n}, 2))", "Each pays {x}.|That is {x} each."),
      Task(_bill, "A bill of {a} with a {p}% tip, split between {n} people: how much each?|Split {a} {who} plus {p}% tip between {n}.|{n} of us share a bill of {a} and tip {p}%. What does each pay?", "print(round({a} * (1 + {p} / 100) / {n}, 2))", "Each pays {x}.|With the tip, it is {x} each."),
      Task(_bill, "A jacket costs {a} {who} and is {p}% off. What's the new price?|price after {p}% discount on {a}|What does something for {a} cost with {p}% off?|{a} {who} minus a {p}% discount", "print(round({a} * (1 - {p} / 100), 2))", "The new price is {x}.|With {p}% off, it costs {x}."),
      Task(_bill, "I buy things for {a}, {b} and {c}. What do I pay in all?|total of {a}, {b} and {c} {who}|Add my bills: {a}, {b} and {c}.|groceries {a}, fuel {b}, lunch {c}: how much altogether?", "print(round({a} + {b} + {c}, 2))", "In all, it is {x}.|The total is {x}.|That comes to {x}."),
      Task(_bill, "The price is {a} plus {p}% tax. How much is it with tax?|{a} plus {p}% VAT|What is {a} {who} with {p} percent sales tax?|add {p}% VAT to {a}", "print(round({a} * (1 + {p} / 100), 2))", "With tax, it is {x}.|The price with {p}% tax is {x}."),
      Task(_bill, "The price went from {a} to {b}. By how many percent did it change?|percent change from {a} to {b}|From {a} to {b}: what change in percent is that?", "print(round(({b} - {a}) / {a} * 100, 2))", "The change is {x}%.|It changed by {x}%."),
      Task(_bill, "I save {a} {who} a month. How much is that in a year?|{a} a month is how much a year?|My rent is {a} a month. What do I pay per year?|yearly cost of {a} per month", "print(round({a} * 12, 2))", "That is {x} a year.|In a year, it is {x}."),
      Task(_bill, "What percent of {b} is {a}?|{a} is what percentage of {b}?|{a} out of {b} in percent|Express {a} of {b} as a percentage.", "print(round({a} / {b} * 100, 2))", "{a} is {x}% of {b}.|That is {x}%."),
      Task(_interest, "I put {a} in a savings account at {p}% a year. How much is it after {n} years with compound interest?|compound interest: {a} at {p}% for {n} years|What do {a} grow to in {n} years at {p} percent compounded yearly?|{a} invested at {p}% per year for {n} years, compounded", "print(round({a} * (1 + {p} / 100) ** {n}, 2))", "After {n} years, it is {x}.|It grows to {x}."),
      Task(_interest, "What is the simple interest on {a} at {p}% for {n} years?|simple interest: {a}, {p}%, {n} years", "print(round({a} * {p} / 100 * {n}, 2))", "The simple interest is {x}."),
      ) * 2,
    # Word problems
    *(Task(_story, "{who} has {a} boxes with {b} {thing} each and gives away {c}. How many {thing} are left?|There are {a} bags of {b} {thing}. {who} takes {c}. How many {thing} remain?", "print({a} * {b} - {c})", "{x} {thing} are left.|There are {x} {thing} left."),
      Task(_story, "{who} buys {a} {thing} at {price} each. What is the total?|How much do {a} {thing} cost at {price} apiece?|{a} {thing} for {price} each, how much?|If one costs {price}, what do {a} cost?", "print(round({a} * {price}, 2))", "The total is {x}.|{a} {thing} cost {x}.|That comes to {x}."),
      Task(_story, "{who} pays for {a} {thing} at {d} each with a 1000 note. How much change is it?|I pay {a} times {d} with a 1000 note. How much change do I get?", "print(1000 - {a} * {d})", "You get {x} back.|The change is {x}."),
      Task(_story, "{who} reads {b} pages a day. How many days for a book of {big} pages?|A book has {big} pages. At {b} pages a day, how many days does it take?", "import math\nprint(math.ceil({big} / {b}))", "It takes {x} days.|{x} days."),
      Task(_story, "{who} has {a} {thing}, finds {b} more and loses {c}. How many now?|Start with {a} {thing}, add {b}, remove {c}. How many are there?", "print({a} + {b} - {c})", "There are {x} {thing}.|That makes {x} {thing}."),
      Task(_story, "A car drives {big} km in {d} hours. What is its average speed?|We drove {big} km and it took {d} hours. How fast were we on average?|average speed for {big} km in {d} hours", "print(round({big} / {d}, 2))", "The average speed is {x} km/h.|{x} km/h on average."),
      Task(_story, "A room is {a} m long and {d} m wide. What is its area?|area of a rectangle {a} by {d}|How many square metres is {a} m by {d} m?|floor of {a} times {d} metres: how big?", "print({a} * {d})", "The area is {x} square metres.|It is {x} square metres."),
      Task(_story, "What is the perimeter of a rectangle of {a} by {d}?|A garden is {a} m by {d} m. How long is the fence around it?|perimeter of {a} x {d} rectangle", "print(2 * ({a} + {d}))", "The perimeter is {x}.|It is {x} around."),
      Task(_story, "What is the area of a circle with radius {a}?|area of a circle, radius {a}|circle with r = {a}: area?", "import math\nprint(round(math.pi * {a} ** 2, 2))", "The area is {x}.|It is {x}."),
      Task(_story, "A recipe for {d} people needs {big} g of flour. How much for {a} people?|{big} g serve {d}. How many grams for {a}?", "print(round({big} / {d} * {a}, 2))", "You need {x} g.|For {a} people it is {x} g."),
      Task(_story, "{who} is {a} years old. How old in {c} years?|I am {a}. How old will I be in {c} years?|age {a} now, age after {c} years?", "print({a} + {c})", "{x} years old.|In {c} years, it will be {x}."),
      Task(_story, "{who} works {d} hours a day for {b} days at {price} an hour. How much is earned?|{d} hours a day, {b} days, {price} per hour: total pay?", "print(round({d} * {b} * {price}, 2))", "The pay is {x}.|That comes to {x}."),
      ) * 2,
)  # fmt: skip

# A program that fails, as it is told.
_FAILS: tuple[tuple[Maker, str, str, str], ...] = (
    (_n(1, 9999), "What is {n} divided by 0?|{n} / 0|divide {n} by zero|Calculate {n}/0.|how much is {n} over 0?", "print({n} / 0)", "{n} can't be divided by 0: division by zero is not defined.|That is not defined: no number can be divided by 0.|Division by zero is not possible, so {n} / 0 has no result."),
    (_n(1, 999), "What is the square root of -{n}?|sqrt(-{n})|square root of minus {n}|take the root of -{n}", "import math\nprint(math.sqrt(-{n}))", "-{n} has no real square root.|A negative number like -{n} has no real square root."),
    (lambda rng, _: {"m": rng.choice(("2", "4", "6", "9", "11")), "y": str(rng.randint(2001, 2030))}, "What weekday is day 31 of month {m} in {y}?|weekday of {y}-{m}-31|Which day of the week is {y}-{m}-31?", "from datetime import date\nprint(date({y}, {m}, 31).strftime('%A'))", "There is no such date: that month has no day 31.|That date does not exist."),
    (_numbers, "What is number 12 in this list: {shown}?|the 12th item of {shown}|Give me element 12 of {shown}.", "print({list}[11])", "The list has no 12th item: it is too short.|There is no item 12 in that list."),
    (_word, "Turn the word {w} into an integer.|int('{w}')|convert '{w}' to a number", "print(int('{w}'))", "\"{w}\" is not a number, so it can't be converted.|That failed: {w} is not a number."),
    (lambda rng, split: {"f": f"{made_up(rng, split)}.txt"}, "Read the file {f}.|What is in {f}?|open {f} and show it", "print(open('{f}').read())", "I couldn't read {f}: there is no such file.|There is no file {f} here."),
)  # fmt: skip
# A program that fails and is then mended.
_MENDS: tuple[tuple[Maker, str, str, str, str], ...] = (
    (_numbers, "Use numpy to get the mean of {shown}.|mean of {shown} with numpy|with numpy, average {shown}", "import numpy_corral as numpy\nprint(numpy.mean({list}))", "import statistics\nprint(round(statistics.mean({list}), 2))", "numpy is not installed here; plain Python gives a mean of {x}.|Without numpy, which is missing here, the mean is {x}."),
    (lambda rng, _: {"n": str(rng.randint(2, 500)), "m": str(rng.randint(2, 500)), "v": rng.choice(("total", "x", "y", "area", "result"))}, "Run this code: {v} = {n} * {m}|Execute {v} = {n} * {m}|run {v} = {n} * {m} in python|What happens if I run {v} = {n} * {m}?", "{v} = {n} * {m}", "{v} = {n} * {m}\nprint({v})", "The value is {x}.|It is {x}."),
)  # fmt: skip


def _until(rng: Random, split: str, date: datetime.date) -> Talk | None:
    """A question that needs today's date, which the prompt states."""
    today = _code_day(date)
    n = rng.randint(3, 200)
    name, month, day = rng.choice((("Christmas", 12, 25), ("New Year's Eve", 12, 31), ("1 May", 5, 1), ("Halloween", 10, 31), ("Valentine's Day", 2, 14), ("1 September", 9, 1), ("3 March", 3, 3)))  # fmt: skip
    target = datetime.date(date.year, month, day)
    if target <= date:
        target = datetime.date(date.year + 1, month, day)
    long = f"{date.day} {_MONTHS[date.month - 1]} {date.year}"
    options: list[tuple[str, str, str]] = [
        ("How many days until {name}?|days until {name}|How long is it until {name}?|how many days are left until {name}?", f"from datetime import date\nprint(({_code_day(target)} - {today}).days)", "It is {x} days until {name}.|There are {x} days left until {name}."),
        ("What date is it in {n} days?|which date is {n} days from now?|{n} days from today|date in {n} days?", f"from datetime import date, timedelta\nprint({today} + timedelta(days={n}))", "In {n} days, it is {x}.|{n} days from now is {x}."),
        ("What day of the week is it today?|which weekday is it?|What weekday is today?", f"from datetime import date\nprint({today}.strftime('%A'))", "Today is a {x}.|It is a {x}."),
        ("What is today's date?|what's the date|What date is it?|which day is it today?|Today's date please", "", "Today is {long}.|It is {long}.|Today's date is {long}."),
        ("What year is it?|which year is it now?", "", "It is {year}."),
    ]  # fmt: skip
    asks, code, says = rng.choice(options)
    mine = in_split(asks.split("|"), split)
    if not mine:
        return None
    slots = {"name": name, "n": str(n), "long": long, "year": str(date.year)}
    talk = Talk()
    talk.user(rng.choice(mine).format(**slots))
    if code:
        printed, _ = run(code)
        talk.code(code)
        talk.results(printed)
        slots["x"] = printed
    talk.say(rng.choice(says.split("|")).format(**slots))
    return talk


@lru_cache(maxsize=None)
def _mine(asks: str, split: str) -> tuple[str, ...]:
    return in_split(asks.split("|"), split)


def task_branch(rng: Random, split: str, date: datetime.date | None, turns: int) -> Talk | None:
    """A conversation that opens with a task and may go on with `turns` follow-ups about its number."""
    pick = rng.random()
    if date is not None and pick < 0.06:
        return _until(rng, split, date)
    if pick < 0.10:
        return _failing(rng, split)
    if pick < 0.12:
        return _mended(rng, split)
    task = rng.choice(TASKS)
    asks = _mine(task.asks, split)
    if not asks:
        return None
    slots = dict(task.make(rng, split))
    program = _filled(task.code, slots)
    printed, failed = run(program)
    if failed:
        raise ValueError(f"A task's program failed:\n{program}\n{printed}")
    talk = Talk()
    talk.user(_filled(rng.choice(asks), slots))
    talk.code(program)
    talk.results(printed)
    talk.say(_filled(rng.choice(_says(task, printed)), slots | _readings(printed)))
    for _ in range(turns):
        if task.yes or "\n" in printed or not follow_up(rng, split, talk, printed):
            break
        last = [m for m in talk.messages if m.role == "tool"][-1]
        printed = str(last.content)
    return talk


def _says(task: Task, printed: str) -> list[str]:
    return (task.yes if task.yes and printed == "True" else task.says).split("|")


def _readings(printed: str) -> dict[str, str]:
    """What an answer may quote of the printed text: all of it, or a list's items without brackets and quotes."""
    inside = printed.strip("[]()")
    items = inside.split(", ")
    bare = [item.strip("'\"") for item in items]
    return {"x": printed, "items": joined(items) or "none", "names": ", ".join(bare), "spaced": ", ".join(printed.split()),
            "first": items[0], "second": items[-1]}  # fmt: skip


def _filled(template: str, slots: Slots) -> str:
    for name, text in slots.items():
        template = template.replace("{" + name + "}", text)
    return template


def _failing(rng: Random, split: str) -> Talk | None:
    make, asks, code, says = rng.choice(_FAILS)
    mine = _mine(asks, split)
    if not mine:
        return None
    slots = make(rng, split)
    talk = Talk()
    talk.user(_filled(rng.choice(mine), slots))
    program = _filled(code, slots)
    printed, failed = run(program)
    talk.code(program)
    talk.results(printed, is_error=failed)
    talk.say(_filled(rng.choice(says.split("|")), slots))
    return talk


def _mended(rng: Random, split: str) -> Talk | None:
    make, asks, code, better, says = rng.choice(_MENDS)
    mine = _mine(asks, split)
    if not mine:
        return None
    slots = make(rng, split)
    talk = Talk()
    talk.user(_filled(rng.choice(mine), slots))
    for program in (_filled(code, slots), _filled(better, slots)):
        printed, failed = run(program)
        talk.code(program.replace("numpy_corral as numpy", "numpy"))
        talk.results(printed.replace("numpy_corral", "numpy"), is_error=failed)
    talk.say(_filled(rng.choice(says.split("|")), {**slots, "x": printed}))
    return talk
