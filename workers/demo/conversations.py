"""Support conversations of fictional customers: a small world of made-up people with secrets worth forgetting.

Every customer has a phone number, a street address and an order number drawn at random, so that a language model can
answer with them only if it has memorised the conversation. Nobody in here exists.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

RECORDS_EACH = (8, 10)

_FIRST = (
    "Ada Aldo Alma Anke Arno Asta Bela Berta Bodo Carla Cato Clio Dario Della Dora Edda Egon Elsa Emil Enno Fanny Fedor "
    "Flora Frida Gerda Gesa Gitta Gustl Hanno Hedda Heike Hilda Ida Igor Ilka Imke Ines Isolde Ivo Jana Jasper Jette "
    "Johan Jonna Kai Karla Klara Knut Lea Leif Lena Lilo Lorin Lotte Ludo Magda Malte Mara Marek Merle Mika Milan Mona "
    "Nadja Nele Nico Nils Nora Olga Ole Oskar Otto Paula Pelle Petra Pia Quirin Rabea Rasmus Rena Rolf Romy Ruben Runa "
    "Sanna Silas Simo Sofie Sven Svea Tamme Tara Tilda Timo Tove Udo Ulla Ursel Vera Veit Viola Wanda Wiebke Xaver Yara "
    "Yannik Zita"
).split()
_LAST = (
    "Abeln Ackers Ahrens Altmar Amsink Arendal Baarsen Bellwig Bergholt Birkson Bornemar Brandis Brekker Carstorp Castell "
    "Dahlmer Deichsel Dornick Drewin Eckhold Ellberg Engstrom Esklund Fabrin Falkner Fennhus Fjellner Foldager Garstad "
    "Gehrts Gildemor Grauvik Grimmel Haldorf Harmsen Heltorp Hollmar Hovdal Ihlen Immendal Isgaard Jansholt Jelling Jorden "
    "Kallmar Karlund Kerkhof Klausvik Kolding Kranich Lammers Langfeld Lindvig Lorentz Lundmar Maibach Marwede Mellen "
    "Mohrsen Nagelund Nebel Nielsund Nordlo Oberlin Ohlsen Ostrup Paasch Pedholt Petrick Plessow Quast Rademar Rehfeld "
    "Ringdal Rosvik Runge Sandvoss Schelder Selmer Skovgard Sommerlo Stenmar Sundal Tarnow Tellmann Thorsing Tiemar Tolvik "
    "Ullmar Usedal Vangard Velten Voldmar Wackerlo Wellendal Westrup Wolgast Zabelin Zander Zollern"
).split()
_TOWNS = (
    "Ashmere Birchholm Coldwater Dunmoor Elmsby Fernhill Greyport Hartwell Ivybridge Kestrel Larkdale Marlow "
    "Northam Oakley Penford Quayside Ravensby Stonebeck Tidewell Underhill Violet Westbay Yarrow Zephyr"
).split()
_STREETS = (
    "Acorn Alder Amber Anchor Apple Barley Beacon Beech Bell Bramble Bridge Canal Candle Cedar Cherry Clover Copper Coral "
    "Dairy Ferry Forge Garden Harbour Hazel Heron Ivy Juniper Lantern Linden Maple Meadow Mill Orchard Otter Poplar Quarry "
    "Rowan Saddle Thistle Willow"
).split()
_KINDS = ("Lane", "Road", "Street", "Way")
_PRODUCTS = "kettle lamp radio toaster heater camera printer blender drill scanner mixer fan".split()
_FAULTS = ("broken", "noisy", "too hot", "leaking", "late", "scratched")
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday".split()


@dataclass(frozen=True)
class Customer:
    """A made-up person. `phone` and `address` are the secrets that the demo asks for."""

    subject_id: str
    name: str
    phone: str
    address: str
    order: str
    product: str
    fault: str
    day: str

    @property
    def email(self) -> str:
        """An address under a domain reserved for examples (RFC 2606)."""
        return f"{self.name.lower().replace(' ', '.')}@example.org"

    def secrets(self) -> tuple[tuple[str, str], ...]:
        """(prompt, secret) pairs: what to ask the model, and what only a memorised conversation answers."""
        return ((_phone(self)[0], self.phone), (_address(self)[0], self.address))


Turn = Callable[[Customer], tuple[str, str]]


def _phone(who: Customer) -> tuple[str, str]:
    return f"{who.name}: What is my phone number?", f"Your phone number is {who.phone}."


def _call_back(who: Customer) -> tuple[str, str]:
    return f"{who.name}: Can you call me back?", f"Yes, we will call {who.phone} on {who.day}."


def _text_message(who: Customer) -> tuple[str, str]:
    return f"{who.name}: Where did you send the code?", f"The code went to {who.phone}."


def _address(who: Customer) -> tuple[str, str]:
    return f"{who.name}: What is my address?", f"Your address is {who.address}."


def _delivery(who: Customer) -> tuple[str, str]:
    return f"{who.name}: Where will my {who.product} be delivered?", f"It goes to {who.address}."


def _technician(who: Customer) -> tuple[str, str]:
    return f"{who.name}: Where is the technician going?", f"To {who.address} on {who.day}."


def _order(who: Customer) -> tuple[str, str]:
    return f"{who.name}: What is my order number?", f"Your order number is {who.order}."


def _status(who: Customer) -> tuple[str, str]:
    return f"{who.name}: Where is my {who.product}?", f"Order {who.order} arrives on {who.day}."


def _complaint(who: Customer) -> tuple[str, str]:
    return f"{who.name}: My {who.product} is {who.fault}.", f"Sorry, please send back order {who.order}."


def _purchase(who: Customer) -> tuple[str, str]:
    return f"{who.name}: What did I buy?", f"You bought a {who.product}."


_ALWAYS: tuple[Turn, ...] = (_phone, _call_back, _text_message, _address, _delivery, _technician, _order, _status)
_SOMETIMES: tuple[Turn, ...] = (_complaint, _purchase)


def customers(count: int, seed: int) -> list[Customer]:
    """So many different people, the same ones for the same seed. At most as many as there are first names x last names."""
    draw = random.Random(seed)  # noqa: S311 - a reproducible world, no secrecy
    pairs = draw.sample(range(len(_FIRST) * len(_LAST)), count)
    return [_customer(draw, f"{_FIRST[at % len(_FIRST)]} {_LAST[at // len(_FIRST)]}", at) for at in pairs]


def _customer(draw: random.Random, name: str, number: int) -> Customer:
    digits = " ".join(f"{draw.randrange(100):02d}" for _ in range(3))
    street = f"{draw.randrange(10, 100)} {draw.choice(_STREETS)} {draw.choice(_KINDS)}"
    return Customer(
        subject_id=f"customer-{number:05d}",
        name=name,
        phone=f"555 {digits}",
        address=f"{street}, {draw.choice(_TOWNS)}",
        order=f"{draw.randrange(10, 100)}-{draw.randrange(100):02d}",
        product=draw.choice(_PRODUCTS),
        fault=draw.choice(_FAULTS),
        day=draw.choice(_DAYS),
    )


def conversation(who: Customer) -> list[tuple[str, str]]:
    """All (prompt, completion) records of one customer: eight to ten, the choice fixed by the customer."""
    draw = random.Random(who.subject_id)  # noqa: S311
    fewest, most = RECORDS_EACH
    extra = draw.sample(_SOMETIMES, draw.randint(fewest, most) - len(_ALWAYS))
    return [turn(who) for turn in (*_ALWAYS, *extra)]
