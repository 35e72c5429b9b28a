"""What the demo company sells, where, when people want it, and what its people are called. Constants, no behaviour."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from datetime import date

import numpy as np

from cdp_pipeline.sources.demo.text import Numbers


def _words(text: str) -> list[str]:
    return text.split()


STORES = ["Leeds", "Bristol", "Norwich"]
CUSTOMERS_PER_TABLET, MOST_TABLETS = 200, 100
CITIES = _words("""
    Leeds Bristol Norwich London Manchester York Bath Ipswich Sheffield Cardiff Dublin Glasgow
""")
POSTCODES = ["LS", "BS", "NR", "SE", "M", "YO", "BA", "IP", "S", "CF", "D", "G"]
IRISH_CITY = CITIES.index("Dublin")
DEVICES = ["desktop", "phone", "app phone"]
MAIL_DOMAINS = ["example.com", "example.org", "example.net", "mail.example.com"]
CASHIERS = ["Amira", "Ben", "Chloe", "Dev", "Erin", "Finn"]
PLATFORMS = ["search", "social", "display"]
AD_CAMPAIGNS = ["brand", "season", "outlet"]
TOPICS = ["delivery", "return", "product", "warranty", "invoice"]
RETURN_REASONS = ["too small", "not as described", "damaged", "changed my mind"]
ALARMS = ["leak", "smoke", "low battery", "offline"]
COLLEAGUES = ["amira.khan", "ben.lloyd", "chloe.reid", "dan.okafor", "eve.murray", "finn.walsh"]
INDUSTRIES = ["dental practice", "architects", "school", "hotel", "law firm", "bakery"]
SEARCHES = ["gift", "kettle", "lamp", "rain jacket", "running shoes", "garden chair", "puzzle", "sensor", "sale"]
REVIEW_TEXTS = [
    "Exactly what I was looking for, thank you.",
    "Good, but the colour is not the one in the picture.",
    "Arrived late, works fine.",
    'My daughter calls it "the best thing ever".',
    "Broke after two weeks, sadly.",
]
SURVEY_COMMENTS = [
    "All good, as always",
    "Delivery took long, parcel was wet",
    "Nobody picked up the phone",
    'Lovely staff in the store, "Ben" above all',
    "",
]

WOMEN = _words("""
    Elizabeth Margaret Zoë Siân Chloé Katherine Susan Amelia Olivia Isla Ava Priya Fatima Grace Freya Jennifer
    Rebecca Victoria Alexandra Emily Aoife Niamh Hannah Lucy Yasmin Ingrid
""")
MEN = _words("""
    William Robert James Thomas Edward Michael André José Oliver George Arthur Mohammed Ravi Daniel Samuel
    Benjamin Christopher Matthew Anthony Joseph Seán Lars Hugo Alfie Noah Kwame
""")
GIVEN = WOMEN + MEN
NICKNAMES = dict(
    pair.split("=")
    for pair in _words("""
    Elizabeth=Liz Margaret=Maggie Katherine=Kate Susan=Sue Jennifer=Jenny Rebecca=Becky Victoria=Vicky
    Alexandra=Alex William=Bill Robert=Bob James=Jim Thomas=Tom Edward=Ted Michael=Mike Daniel=Dan Samuel=Sam
    Benjamin=Ben Christopher=Chris Matthew=Matt Anthony=Tony Joseph=Joe
""")
)
FAMILY = _words("""
    Smith Jones Taylor Brown Williams Wilson Johnson Davies Patel Wright Walker Hughes Khan Lewis Robinson
    Thompson Evans Green Hall Wood Clarke Müller Ward Turner Begum Hill Cooper Morris Moore King Watson Baker
    Harrison Morgan Young Allen Mitchell Brontë Phillips Singh Lee Parker Bennett Ahmed Shaw Okafor O'Neill
    Murphy Byrne Nowak García Ferreira Rossi Novák Lindqvist Hussain Adeyemi Chen Grant Holmes
""")


def mailable(name: str) -> str:
    """The name as people spell it in an e-mail address: zoe for Zoë, oneill for O'Neill."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return "".join(letter for letter in plain.lower() if letter.isalpha())


def tablets(customers: int) -> int:
    """How many tablets lie in the stores: one in each at least, a hundred in all at most."""
    return min(max(customers // CUSTOMERS_PER_TABLET, len(STORES)), MOST_TABLETS)


@dataclass(frozen=True)
class Category:
    """`peak` is the day of the year when people want it most, `swing` how much more than on average."""

    name: str
    articles: tuple[str, ...]
    price: float
    peak: int
    swing: float
    warranty_months: int = 0
    smart: bool = False


CATEGORIES = [
    Category("kitchen", ("Kettle", "Pan", "Knife set", "Toaster"), 34, 340, 0.3, 24),
    Category("garden", ("Chair", "Planter", "Hose", "Parasol"), 42, 140, 0.9),
    Category("clothing", ("Rain jacket", "Scarf", "Jumper", "Shirt"), 38, 300, 0.3),
    Category("sports", ("Running shoes", "Yoga mat", "Bottle", "Racket"), 46, 20, 0.4),
    Category("toys", ("Puzzle", "Building bricks", "Kite", "Doll"), 22, 345, 1.2),
    Category("books", ("Cookbook", "Atlas", "Novel", "Notebook"), 14, 340, 0.5),
    Category("smart_home", ("Smoke sensor", "Leak sensor", "Thermostat", "Doorbell"), 79, 330, 0.4, 24, True),
    Category("beauty", ("Soap", "Hand cream", "Candle", "Towel"), 17, 345, 0.4),
]
ARTICLES_PER_CATEGORY = 40
BRANDS = ["Hearth", "Fenland", "Kestrel", "Oakbank"]
COLOURS = ["black", "white", "blue", "red", "green", "natural"]
SIZED, SIZES = "clothing", ["S", "M", "L", "XL"]


@dataclass(frozen=True)
class Catalogue:
    """Every article, category after category, so that an article's number tells its category."""

    sku: list[str]
    name: list[str]
    category: list[str]
    brand: list[str]
    colour: list[str]
    pence: Numbers
    smart: Numbers
    warranty_months: Numbers

    def category_of(self, article: Numbers) -> Numbers:
        return article // ARTICLES_PER_CATEGORY


def catalogue(seed: int) -> Catalogue:
    rng = np.random.default_rng([seed, 7])
    total = len(CATEGORIES) * ARTICLES_PER_CATEGORY
    number = np.arange(total)
    category = number // ARTICLES_PER_CATEGORY
    base = np.array([kind.price for kind in CATEGORIES])[category]
    pence = (np.round(base * rng.lognormal(0, 0.5, total)).astype(np.int64) * 100 + 99).clip(299)
    names = [
        f"{CATEGORIES[c].articles[n % 4]} {BRANDS[n // 4 % 4]} {n % ARTICLES_PER_CATEGORY + 1}"
        for c, n in zip(category, number, strict=True)
    ]
    return Catalogue(
        sku=[f"{CATEGORIES[c].name[:3].upper()}-{n:04d}" for c, n in zip(category, number, strict=True)],
        name=names,
        category=[CATEGORIES[c].name for c in category],
        brand=[BRANDS[n // 4 % 4] for n in number],
        colour=[COLOURS[n * 5 // 2 % len(COLOURS)] for n in number],
        pence=pence,
        smart=np.array([kind.smart for kind in CATEGORIES])[category],
        warranty_months=np.array([kind.warranty_months for kind in CATEGORIES])[category],
    )


def demand(today: date) -> float:
    """How much people buy on this day against an average one: weekends, Christmas, the January lull."""
    day = today.timetuple().tm_yday
    christmas = 0.9 * math.exp(-(((day - 345) / 16) ** 2))
    january = -0.25 if day < 32 else 0.0
    return (0.95 + christmas + january) * (1.15 if today.weekday() >= 5 else 0.95)


def category_shares(today: date) -> Numbers:
    """What share of today's wishes each category has."""
    day = today.timetuple().tm_yday
    weights = np.array(
        [1 + kind.swing * math.cos(2 * math.pi * (day - kind.peak) / 365.25) for kind in CATEGORIES]
    ).clip(0.05)
    return weights / weights.sum()
