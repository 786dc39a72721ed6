"""Clocks of the regulations. Adding one is adding an entry to `REGULATIONS`.

Not legal advice: the numbers are those of the texts cited. A month is a calendar month (31 January + 1 month = the last
day of February), not 30 days. Public holidays, which may move an end to a later day, are not counted: ends are early.
"""

from calendar import monthrange
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.errors import UnknownRegulation


@dataclass(frozen=True)
class Span:
    """Calendar months and days."""

    months: int = 0
    days: int = 0

    def after(self, start: datetime) -> datetime:
        """The same time of day, this much later; a day that the month does not have becomes its last."""
        year, month = divmod(start.year * 12 + start.month - 1 + self.months, 12)
        day = min(start.day, monthrange(year, month + 1)[1])
        return start.replace(year=year, month=month + 1, day=day) + timedelta(days=self.days)


@dataclass(frozen=True)
class Regulation:
    """`answer` runs from receipt; `extended` is the whole span from receipt when the one extension is taken."""

    name: str
    title: str
    answer: Span
    extended: Span
    citation: str

    def due_at(self, received_at: datetime) -> datetime:
        """By when the answer is due."""
        return self.answer.after(received_at)

    def extended_due_at(self, received_at: datetime) -> datetime:
        """By when it is due after the extension."""
        return self.extended.after(received_at)


REGULATIONS: dict[str, Regulation] = {
    regulation.name: regulation
    for regulation in (
        Regulation(
            name="gdpr",
            title="General Data Protection Regulation (EU) 2016/679",
            answer=Span(months=1),
            extended=Span(months=3),
            citation="Article 12(3): one month of receipt, extendable by two further months",
        ),
        Regulation(
            name="ccpa",
            title="California Consumer Privacy Act",
            answer=Span(days=45),
            extended=Span(days=90),
            citation="Civil Code 1798.130(a)(2), 11 CCR 7021(b): 45 calendar days, once extendable by 45",
        ),
    )
}


def find_regulation(name: str) -> Regulation:
    """The regulation of this name. Raises UnknownRegulation."""
    regulation = REGULATIONS.get(name)
    if regulation is None:
        raise UnknownRegulation(f"unknown regulation; known ones are {', '.join(REGULATIONS)}", pointer="/regulation")
    return regulation
