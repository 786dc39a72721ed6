"""Who asks to be forgotten in the demo, and who stays."""

from collections.abc import Sequence
from dataclasses import dataclass

from workers.demo.conversations import Customer
from workers.demo.digits import Digit
from workers.demo.world import World

GROUP = 12


@dataclass(frozen=True)
class Cast:
    """Twelve customers and twelve writers ask together, one more of each alone; the others stay."""

    members: list[Customer]
    single: Customer
    others: list[Customer]
    writers: list[str]
    writer: str
    records: list[Digit]

    def written_by(self, people: Sequence[str]) -> list[Digit]:
        """Images of these writers."""
        wanted = set(people)
        return [record for record in self.records if record.subject_id in wanted]

    def written_by_others(self) -> list[Digit]:
        """Images of the writers who stay."""
        gone = {*self.writers, self.writer}
        return [record for record in self.records if record.subject_id not in gone]


def choose_cast(world: World) -> Cast:
    """The first twelve of each ask together. Alone asks the writer with most wrong labels: there it shows best."""
    wrong: dict[str, int] = {}
    for record in world.writers:
        wrong[record.subject_id] = wrong.get(record.subject_id, 0) + record.mislabelled
    writers = list(wrong)
    alone = max(writers[GROUP:], key=lambda writer: wrong[writer])
    known = world.customers
    return Cast(known[:GROUP], known[GROUP], known[GROUP + 1 :], writers[:GROUP], alone, world.writers)
