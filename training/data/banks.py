"""Banks of values: what stands in a request and in a result.

`value(rng, split, kind)` draws one. A kind is the name of a bank below, a pattern such as `int(1,9)`, or one of the makers at the
end. A share of names and places are made-up words, so that copying what the user wrote beats writing what is likely.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from random import Random

from pydantic import JsonValue

from training.data.core import chance, in_split, made_up

__all__ = ["value"]

_BANKS: dict[str, str] = {
    "person": """Ana Luigi Maja Tom Ingrid Omar Priya Kofi Yuki Lena Pavel Chloe Mateo Sofia Hugo Nadia Jonas Amara Diego Elif Farah
Greta Hassan Irina Jamal Karin Liam Mira Noor Oskar Petra Quinn Rosa Samir Tara Ulrich Vera Wen Xavier Yusuf Zoe Anton Bea Carlos
Daria Emil Fiona Goran Hana Igor Julia Kenji Lucia Marek Nina Olga Paulo Ravi Sven Tanja Uma Viktor Walid Ximena Yara Zlatan Alice
Bruno Clara Dennis Ellen Felix Grace Henrik Isla Jack Kira Leon Martha Nils Olivia Peter Ruth Simon Theo Ursula Vince Wanda Ali Bob
Sam Mo Jo Li Eva Max Ida Ben Dan Meg Kim Lou Rex Gus Ned""",
    "surname": """Novak Rossi Okafor Tanaka Silva Meyer Dubois Larsen Kowalski Hughes Castro Haddad Ivanov Singh Mbeki Nguyen Horvat
Lindqvist O'Brien Petrov Schmidt Moreau Garcia Kim Costa Weber Jansen Popov Adeyemi Fischer Bianchi Walsh Duarte Reyes Sato D'Angelo""",
    "city": """Oslo|Lima|Tokyo|Paris|Seattle|Zagreb|Nairobi|Porto|Hanoi|Quito|Ghent|Bergen|Tartu|Cork|Lagos|Accra|Delhi|Osaka|Kyoto|Perth
Dublin|Madrid|Lisbon|Vienna|Prague|Warsaw|Athens|Cairo|Tunis|Dakar|Bogota|Havana|Boston|Denver|Dallas|Austin|Miami|Chicago|Toronto
Montreal|Vancouver|Berlin|Hamburg|Munich|Cologne|Zurich|Geneva|Basel|Lyon|Nice|Lille|Rome|Milan|Turin|Naples|Venice|Seoul|Busan|Beijing
Shanghai|Manila|Jakarta|Bangkok|Singapore|Sydney|Melbourne|Auckland|Wellington|Helsinki|Stockholm|Malmo|Copenhagen|Aarhus|Reykjavik
Riga|Vilnius|Tallinn|Kyiv|Minsk|Sofia|Bucharest|Belgrade|Split|Ljubljana|Graz|Brno|Krakow|Gdansk|Budapest|Istanbul|Ankara|Tehran|Doha
Muscat|Amman|Beirut|Tbilisi|Yerevan|Baku|Almaty|Mumbai|Chennai|Pune|Dhaka|Colombo|Kathmandu|San Francisco|New York|Los Angeles|Rio de Janeiro
Buenos Aires|Cape Town|Mexico City|Santiago|La Paz|Leeds|York|Bath|Bristol|Cardiff|Glasgow|Galway|Utrecht|Leiden|Delft|Bruges|Antwerp
Rotterdam|Sevilla|Bilbao|Toledo|Cordoba|Tromso|Vaasa|Turku|Umea|Nuuk|Salem|Reno|Boise|Omaha|Tulsa|Mesa|Napier|Hobart|Darwin|Cairns""",
    "country": """Norway|Peru|Japan|France|Kenya|Portugal|Vietnam|Ecuador|Belgium|Estonia|Ireland|Ghana|India|Spain|Austria|Poland|Greece|Egypt
Tunisia|Senegal|Cuba|Canada|Germany|Switzerland|Italy|Chile|Iceland|Latvia|Croatia|Turkey|Brazil|Mexico|Nepal|Fiji|Malta|Cyprus""",
    "task": """call the dentist|take out the trash|water the plants|pay the rent|buy milk|feed the cat|book the hotel|send the invoice|pick up the kids
charge the camera|return the library books|renew the passport|clean the fridge|email the landlord|check the oven|walk the dog
finish the report|cancel the gym|pack the suitcase|print the tickets|order new filters|defrost the chicken|fix the bike|mow the lawn
wash the car|update the CV|back up the laptop|vote for the board|ring Grandma|take the medicine|stretch|drink water|buy stamps
sign the contract|close the windows|turn off the heating|write to Aunt May|collect the parcel|prepare the slides|change the sheets
get a birthday card for Omar|bring the umbrella|top up the bus card|book a table at Luigi's|do the dishes|sharpen the knives
order dog food|tidy the garage|descale the kettle|renew the car insurance|reply to Priya|post the letter|practise the piano
study chapter 4|submit the tax form|pick up Sam's cake|check the tyres|hang up the laundry|plan the trip to Porto|join the stand-up""",
    "message": """I'm running late|the meeting moved to 3|dinner is ready|can you call me back|I left the keys under the mat|happy birthday
we're at the gate|the train is delayed|see you at eight|please bring the charger|I got the job|the parcel arrived|don't wait for me
lunch at noon?|the code is 4471|I'll be there in ten minutes|good luck today|we need more milk|it's snowing here|the show starts at 9
I've sent the files|thanks for yesterday|it's a yes from me|the car won't start|can't make it tonight|the key is with Rosa
pick me up at the station|the doctor says all is fine|we won the match|please feed the cat|let's meet at Café Luna|who has the tickets?""",
    "event": """team meeting|dentist appointment|lunch with Nadia|yoga class|parents' evening|project review|job interview|book club|piano lesson
football training|haircut|budget call|birthday party|vet visit|stand-up|design workshop|movie night|dinner with the Novaks|car service
choir practice|sprint planning|house viewing|swimming lesson|one-on-one with Kofi|quarterly review|flat inspection|board games night""",
    "product": """garden hose|desk lamp|running shoes|wool socks|coffee grinder|yoga mat|USB cable|water bottle|rain jacket|tea kettle|bike helmet
paper towels|phone case|notebook|frying pan|sleeping bag|garlic press|cat litter|toothbrush|backpack|wireless mouse|candle|picture frame
umbrella|bread knife|drill bits|paint roller|hand cream|baking tray|board game|headphones|office chair|wall clock|dog leash|hiking poles
floor mat|salad bowl|swim goggles|light bulbs|alarm clock|blue pens|oak shelf|beard oil|ink cartridge|jump rope|kids' scissors""",
    "food": """milk|eggs|bread|rice|apples|butter|onions|tomatoes|coffee|tea|pasta|cheese|carrots|yoghurt|olive oil|lentils|flour|sugar|bananas
oats|honey|spinach|garlic|potatoes|lemons|chickpeas|soy sauce|mushrooms|basil|salmon|tofu|cream|walnuts|leeks|cucumbers|peanut butter""",
    "dish": """lasagne|chicken curry|pumpkin soup|pad thai|ratatouille|mushroom risotto|pancakes|fish tacos|beef stew|falafel|paella|apple pie
shakshuka|minestrone|potato salad|banana bread|dal|gnocchi|ramen|goulash|moussaka|pierogi|quiche|carrot cake|chili|gazpacho|borscht""",
    "restaurant": """Luigi's|Café Luna|The Red Door|Sakura|Chez Marie|Bombay Spice|Old Mill|Trattoria Verde|Noodle Bar|El Toro|The Anchor|Zum Adler
Golden Wok|La Piazza|Blue Fig|Mama Rosa's|Smoke & Salt|Little Hanoi|Harbour Grill|Pepe's""",
    "song": """Yesterday|Blue Rain|Paper Moon|Sunday Morning|Long Way Home|Golden Hour|Night Train|Silver Lake|Hold the Line|Ordinary Day
Falling Slowly|River Song|Don't Look Back|Winter Light|The Last Bus|Dancing Shoes|Old Friends|Summer's End|Electric Sky|Slow Down""",
    "artist": """The Beatles|Nina Simone|Ella Bright|The Night Owls|Miles Davis|Kora Lind|Bach|Daft Funk|The Paper Kites|Rosa Velez|Queen
Blue Harbor|Max Romeo|The Lanterns|Adele|Chopin|Ivo Stern|Los Vientos|Johnny Cash|Stella Roy|Abba|Vivaldi""",
    "playlist": """Focus|Road Trip|Sleep|Running|Sunday Jazz|Party|Rainy Days|Morning Coffee|Deep Work|90s Hits|Dinner|Workout|Calm Piano""",
    "genre": "jazz|rock|classical|hip hop|folk|electronic|blues|country|reggae|metal|pop|soul|ambient|salsa",
    "book": """Dune|The Hobbit|Moby Dick|Emma|The Quiet Coast|Salt and Stone|Middlemarch|The Glass Garden|Dracula|Birds of the North|Ulysses
The Time Machine|A Short History of Bread|Winter Letters|Frankenstein|The Lighthouse|Sea Roads|Walden|Orchards|Kim""",
    "film": """Casablanca|The Long River|Metropolis|Blue Station|Alien|City Lights|The Third Man|Paper Boats|Amelie|Vertigo|Roma|Jaws|Up|Arrival
Night Ferry|Psycho|The Baker's Son|Ran|Heat|Moonrise""",
    "language": """French|German|Spanish|Italian|Japanese|Polish|Portuguese|Turkish|Swedish|Korean|Greek|Dutch|Finnish|Arabic|Hindi|Czech
Croatian|Danish|Swahili|Welsh|Norwegian|Hungarian|Thai|Russian""",
    "phrase": """good morning|thank you very much|where is the station?|I would like a coffee|see you tomorrow|how much is this?|the bill, please
I'm lost|happy new year|do you speak English?|cheese|window seat|I don't eat meat|excuse me|good night|it's too expensive|my name is Tom
umbrella|welcome home|two tickets, please|left and right|bread and butter|congratulations|what time is it?|butterfly|ladder""",
    "word": """serendipity|ephemeral|ladder|lagoon|frugal|candid|nimble|obsolete|zenith|brisk|gratitude|meadow|quaint|resilient|lucid|fathom
dwell|ponder|austere|benign|cobble|drizzle|elbow|fickle|gossip|harbor|ivory|jovial|kindle|linger|mirth|notion|orbit|placid|quiver
ripple|solace|tangle|umbrage|vivid|whimsy|yearn|zeal|strawberry|banana|mississippi|parallel|committee|bookkeeper|cinnamon|occurrence""",
    "currency": "USD|EUR|GBP|JPY|CHF|SEK|NOK|DKK|PLN|CZK|CAD|AUD|NZD|INR|BRL|MXN|ZAR|TRY|KRW|CNY|HUF|SGD",
    "ticker": "MSFT|AAPL|TSLA|NVDA|AMZN|IBM|SAP|NFLX|INTC|ORCL|SHEL|NOVO|KO|PEP|DIS|BA|ADBE|SONY|TM|ASML",
    "airport": "OSL|LIM|CDG|JFK|SEA|ZAG|NBO|OPO|HAN|LHR|AMS|MAD|VIE|SFO|BER|KEF|HEL|DUB|ARN|ZRH|LIS|ATH|BCN|PRG",
    "room": "kitchen|bedroom|hallway|bathroom|office|garage|attic|nursery|garden|basement|dining room|living room|guest room|porch",
    "device": "heater|fan|coffee machine|TV|speaker|dishwasher|humidifier|lamp|printer|air purifier|router|oven|washing machine",
    "color": "red|blue|green|white|yellow|purple|orange|pink|turquoise|warm white",
    "sky": "sunny|cloudy|partly cloudy|rainy|windy|foggy|clear|overcast|light snow|stormy|drizzle",
    "day": "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday|tomorrow",
    "weekday": "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday",
    "month": "January|February|March|April|May|June|July|August|September|October|November|December",
    "when": """tomorrow at 9am|tomorrow at noon|tonight at 8|Friday at 3 pm|Monday morning|tomorrow evening|in 20 minutes|in two hours|next Tuesday at 10
Sunday at 18:30|tomorrow|tonight|Saturday afternoon|in half an hour|Wednesday at 7:15|Thursday at noon|next week|in 5 minutes|tomorrow at 6:45
in an hour|tomorrow morning|Tuesday at 4pm|at the end of the month|on 3 May|every Monday at 8""",
    "place": """the main library|Central Park|the old bridge|the city museum|Gate 14|Riverside Mall|the north station|Harbor Street 12|the town hall
Pine Avenue 7|the university|the ferry terminal|the zoo|St. Mary's Hospital|the stadium|Kings Cross|the botanical garden|the airport""",
    "subject": """math|history|biology|chemistry|physics|geography|art|music|English|economics|computer science|literature|philosophy""",
    "topic": """solar panels|the French Revolution|sleep|black holes|bread baking|electric cars|coral reefs|inflation|bees|the Roman Empire|vaccines
chess openings|urban gardening|earthquakes|coffee|remote work|wind power|volcanoes|jazz history|recycling|quantum computing|migration of birds""",
    "docquery": """parental leave|the refund policy|travel costs|the holiday calendar|parking|the office address|warranty|password rules|overtime pay
sick leave|the expense limit|the fire drill|data retention|the lease|guest wifi|opening hours|the bonus scheme|home office|lost keys""",
    "note": """the wifi password is on the fridge|Rosa likes lilies|spare key is with Tom|idea: a quiz for the party|boiler needs 1.5 bar
the plumber costs 60 an hour|locker 214|buy the blue paint, not the green|Sam's shoe size is 43|meter reading 20418|the cat's name is Miso
gate code 7730|book tip: Sea Roads|garden wall is 6 metres long|password hint: first pet|recipe needs more salt""",
    "listname": "groceries|packing|work|birthday|chores|hardware store|wishlist|holiday|garden|party",
    "team": "Arsenal|Ajax|Benfica|Celtic|Dinamo|the Lakers|the Bulls|Porto|Inter|Rosenborg|the Yankees|Sparta|Lyon|Boca Juniors",
    "category": "food|travel|rent|books|clothes|transport|health|gifts|fun|office",
    "store": "Main Street|Harbor|North Mall|Old Town|Airport|Riverside|Station Square|West End",
    "ailment": "a sore throat|hay fever|a mild burn|a nosebleed|a stiff neck|hiccups|a blister|a cold",
    "job": "data analyst|nurse|welder|teacher|baker|graphic designer|bus driver|accountant|gardener|electrician|web developer",
    "carmodel": "Golf|Corolla|Fiesta|Model 3|Yaris|Octavia|Panda|Leaf|Civic|Clio",
    "sport": "running|swimming|cycling|yoga|rowing|climbing|tennis|walking|dancing|boxing",
    "animal": "cat|dog|hamster|parrot|rabbit|turtle|horse|ferret|goldfish|guinea pig",
    "plant": "basil|monstera|tomato|orchid|cactus|rosemary|fern|lavender|peace lily|mint",
    "review": "great value|arrived late but works|too small|love it|broke after a week|does the job|my kids adore it|not as pictured",
    "bug": """login page shows a blank screen|export fails for large files|the app crashes on start|search ignores umlauts|the dark theme is unreadable
images don't load|the total is wrong in the cart|password reset mail never arrives|the map freezes|sync stops after an hour""",
    "fileword": "report|budget|notes|invoice|summary|photo|draft|plan|minutes|backup|slides|contract|recipe|todo|letter|results",
    "ext": "txt|pdf|md|csv|docx|png|json|py|xlsx",
    "status": "shipped|processing|delivered|out for delivery|delayed|cancelled|packed|awaiting payment",
}


@lru_cache(maxsize=None)
def _bank(name: str, split: str) -> tuple[str, ...]:
    text = _BANKS[name]
    items = (
        [item.strip() for line in text.split("\n") for item in line.split("|")]
        if "|" in text
        else text.split()
    )
    mine = in_split(items, split)
    # A small bank would leave a split with nothing: it is shared.
    return tuple(items) if len(items) < 26 or len(mine) < 3 else mine


_PATTERN = re.compile(r"(\w+)\(([^)]*)\)")
_OFTEN_MADE_UP = {"person": 0.15, "city": 0.12, "restaurant": 0.15, "product": 0.06, "word": 0.1, "book": 0.1, "artist": 0.1}


def value(rng: Random, split: str, kind: str) -> JsonValue:
    """One value of a kind, from the split's share of its bank.

    Kinds: a bank's name; `int(low,high)`; `price(low,high)` (two decimals); `float(low,high)` (one decimal); `one(a|b|c)`;
    `some(kind)` (a list of two to four); and the makers `clock`, `date`, `id`, `code`, `email`, `phone`, `file`, `fullname`,
    `address`, `tracking`, `bool`, `made_up`, `Made_up`, `time_span`.
    """
    found = _PATTERN.fullmatch(kind)
    if found:
        return _patterned(rng, split, found[1], found[2])
    if kind in _MAKERS:
        return _MAKERS[kind](rng, split)
    if chance(rng, _OFTEN_MADE_UP.get(kind, 0.0)):
        word = made_up(rng, split)
        return word if kind in ("word", "product") else word.capitalize()
    return rng.choice(_bank(kind, split))


def _patterned(rng: Random, split: str, name: str, inside: str) -> JsonValue:
    if name == "one":
        return rng.choice(inside.split("|"))
    if name == "some":
        items: list[JsonValue] = []
        wanted = rng.choice((2, 2, 3, 3, 4))
        while len(items) < wanted:
            item = value(rng, split, inside)
            if item not in items:
                items.append(item)
        return items
    low, high = (float(part) for part in inside.split(","))
    if name == "int":
        return _integer(rng, int(low), int(high))
    if name == "price":
        return round(rng.uniform(low, high), 2)
    if name == "float":
        return round(rng.uniform(low, high), 1)
    raise ValueError(f"There is no kind of value {name!r}.")


def _integer(rng: Random, low: int, high: int) -> int:
    if high - low > 300 and chance(rng, 0.5):  # small numbers would be rare in a wide range
        return rng.randint(low, min(high, low + 10 ** rng.randint(1, len(str(high)) - 1)))
    return rng.randint(low, high)


def _clock(rng: Random, _: str) -> str:
    hour, minute = rng.randint(1, 12), rng.choice((0, 0, 15, 30, 45, rng.randint(1, 59)))
    if chance(rng, 0.4):
        return f"{hour + rng.choice((0, 11)):02d}:{minute:02d}"
    half = rng.choice(("am", "pm", " am", " pm"))
    return f"{hour}{half}" if minute == 0 else f"{hour}:{minute:02d}{half}"


def _date(rng: Random, split: str) -> str:
    year, month, day = rng.randint(2024, 2027), rng.randint(1, 12), rng.randint(1, 28)
    if chance(rng, 0.55):
        return f"{year}-{month:02d}-{day:02d}"
    name = _bank("month", split)[month - 1]
    return rng.choice((f"{day} {name}", f"{name} {day}", f"{day} {name} {year}"))


def _code(rng: Random, split: str) -> str:
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
    head = "".join(rng.choice(letters) for _ in range(rng.randint(1, 3)))
    tail = "".join(rng.choice("0123456789") for _ in range(rng.randint(2, 5)))
    return rng.choice((f"{head}-{tail}", f"{head}{tail}", f"{head}-{tail}{rng.choice(letters)}"))


def _email(rng: Random, split: str) -> str:
    name = str(value(rng, split, "person")).lower()
    host = rng.choice(("mail.com", "example.org", "post.net", f"{made_up(rng, split)}.com", f"{made_up(rng, split)}.io"))
    return rng.choice((f"{name}@{host}", f"{name}{rng.randint(1, 99)}@{host}", f"{name}.{made_up(rng, split)}@{host}"))


def _phone(rng: Random, _: str) -> str:
    digits = "".join(rng.choice("0123456789") for _ in range(7))
    return rng.choice((f"555-{digits[:4]}", f"+1 555 {digits}", f"0{digits[:2]} {digits[2:]}", f"555{digits[:4]}"))


def _file(rng: Random, split: str) -> str:
    stem = rng.choice((str(value(rng, split, "fileword")), made_up(rng, split)))
    tail = rng.choice(("", "", f"_{rng.randint(1, 30)}", f"-{rng.randint(2023, 2027)}", "_final"))
    return f"{stem}{tail}.{rng.choice(_bank('ext', split))}"


def _full_name(rng: Random, split: str) -> str:
    return f"{value(rng, split, 'person')} {value(rng, split, 'surname')}"


def _address(rng: Random, split: str) -> str:
    street = rng.choice(("Street", "Avenue", "Lane", "Road"))
    return f"{rng.randint(1, 180)} {made_up(rng, split).capitalize()} {street}"


def _span(rng: Random, _: str) -> str:
    return rng.choice((f"{rng.randint(2, 55)} minutes", f"{rng.randint(2, 5)} hours", f"{rng.randint(20, 90)} seconds"))


_MAKERS: dict[str, Callable[[Random, str], JsonValue]] = {
    "clock": _clock,
    "date": _date,
    "id": lambda rng, _: _integer(rng, 10, 99999),
    "code": _code,
    "email": _email,
    "phone": _phone,
    "file": _file,
    "fullname": _full_name,
    "address": _address,
    "tracking": lambda rng, split: f"{_code(rng, split)}{rng.randint(100, 999)}".replace("-", ""),
    "bool": lambda rng, _: chance(rng, 0.5),
    "made_up": lambda rng, split: made_up(rng, split),
    "Made_up": lambda rng, split: made_up(rng, split).capitalize(),
    "time_span": _span,
}
