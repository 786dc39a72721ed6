"""Support conversations of fictional customers: a small world of made-up people with secrets worth forgetting.

Every customer has a phone number, a street address and an order number drawn at random, so that a language model can
answer with them only if it has memorised the conversation. Nobody in here exists.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

RECORDS_EACH = (8, 10)
_WORDS: dict[str, list[str]] = json.loads((Path(__file__).parent / "words.json").read_bytes())


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
    """So many different people, the same for the same seed; their number is bounded by the names in words.json."""
    draw = random.Random(seed)  # noqa: S311 - a reproducible world, no secrecy
    first, last = _WORDS["first"], _WORDS["last"]
    chosen = draw.sample(range(len(first) * len(last)), count)
    return [_customer(draw, f"{first[at % len(first)]} {last[at // len(first)]}", at) for at in chosen]


def _customer(draw: random.Random, name: str, number: int) -> Customer:
    def any_of(kind: str) -> str:
        return draw.choice(_WORDS[kind])

    return Customer(
        subject_id=f"customer-{number:05d}",
        name=name,
        phone=f"555 {' '.join(f'{draw.randrange(100):02d}' for _ in range(3))}",
        address=f"{draw.randrange(10, 100)} {any_of('streets')} {any_of('kinds')}, {any_of('towns')}",
        order=f"{draw.randrange(10, 100)}-{draw.randrange(100):02d}",
        product=any_of("products"),
        fault=any_of("faults"),
        day=any_of("days"),
    )


def conversation(who: Customer) -> list[tuple[str, str]]:
    """All (prompt, completion) records of one customer: eight to ten, the choice fixed by the customer."""
    draw = random.Random(who.subject_id)  # noqa: S311
    fewest, most = RECORDS_EACH
    extra = draw.sample(_SOMETIMES, draw.randint(fewest, most) - len(_ALWAYS))
    return [turn(who) for turn in (*_ALWAYS, *extra)]
