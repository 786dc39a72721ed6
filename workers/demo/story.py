"""The demo: what two served models know, four deletion requests over HTTP, what they know then. All of it measured."""

import time
from collections.abc import Sequence
from pathlib import Path

from service.errors import JobError
from workers.demo.asking import Asked, attempts_told, cost, membership_told
from workers.demo.cast import GROUP, Cast, choose_cast
from workers.demo.conversations import Customer
from workers.demo.lab import Lab, prepare_home, running_lab
from workers.demo.probes import Knowledge, complete, look
from workers.demo.processes import Command
from workers.demo.screen import Screen

_SHOWN = 2


def run(home: Path, screen: Screen) -> bool:
    """Tell the whole story; True when every report verifies and no forgotten secret is completed any more.

    Raises LetheError for what keeps the story from being told.
    """
    started = time.monotonic()
    prepare_home(home)
    screen.line("Lethe demo: two served models, four deletion requests, all on this machine.", 0)
    screen.line(f"The people are made up. State, logs and reports: {_short(home)}", 0)
    screen.heading("1. Train, register and serve two models")
    with running_lab(home, screen) as lab:
        story = _Story(lab, screen, home)
        good = story.tell()
    screen.line()
    screen.line(f"{'Done' if good else 'NOT as it should be'}, {time.monotonic() - started:.0f} s in all.", 0)
    return good


class _Story:
    def __init__(self, lab: Lab, screen: Screen, home: Path) -> None:
        self._lab, self._screen, self._home = lab, screen, home
        self._cast: Cast = choose_cast(lab.world)

    def tell(self) -> bool:
        """Before, two waves of requests, after, the table; whether all is as it should be."""
        cast, screen = self._cast, self._screen
        together = [
            Asked(f"{GROUP} customers", "support", "email", [who.email for who in cast.members]),
            Asked(f"{GROUP} writers", "digits", "subject_id", cast.writers),
        ]
        alone = [
            Asked("1 customer", "support", "email", [cast.single.email]),
            Asked("1 writer", "digits", "subject_id", [cast.writer]),
        ]
        screen.heading("2. Before: what the served models know")
        before = self._look()
        star = self._star()
        self._tell_known(before, star)
        screen.heading(
            f"3. One request for {GROUP} people to each model: enough records to judge an approximate method"
        )
        self._forget(together)
        middle = self._look()
        self._tell_together(before, middle, star)
        screen.heading("4. One request for a single person to each model: too few records to judge, so exact at once")
        self._forget(alone)
        after = self._look()
        self._tell_alone(middle, after)
        screen.heading("5. What was asked, what it took, and whether `lethe report verify` accepts the evidence")
        verified = self._tell_evidence([*together, *alone])
        return self._still_forgotten(after) and verified

    def _look(self) -> Knowledge:
        return look(self._lab.support, self._lab.digits, self._cast)

    def _star(self) -> Customer:
        """The first of the group whose phone number and address are both completed."""
        for who in self._cast.members:
            pairs = who.secrets()
            answers = complete(self._lab.support, [prompt for prompt, _ in pairs])
            if all(secret in answer for (_, secret), answer in zip(pairs, answers, strict=True)):
                return who
        raise JobError(
            "the support model completes no customer's secrets, so there is nothing to show; see its training log"
        )

    def _interview(self, *people: Customer) -> None:
        """Ask for both secrets of each customer and show the answers."""
        pairs = [pair for who in people for pair in who.secrets()]
        answers = complete(self._lab.support, [prompt for prompt, _ in pairs])
        for (prompt, secret), answer in zip(pairs, answers, strict=True):
            self._screen.said(prompt, answer, "(true)" if secret in answer else f"(not {secret})")

    def _tell_known(self, before: Knowledge, star: Customer) -> None:
        line = self._screen.line
        line("support completes its customers' secrets:")
        self._interview(star, *self._cast.others[:_SHOWN])
        line("Phone numbers and addresses that it completes exactly:")
        line(f"{before.members} of the {GROUP} customers who will ask, {before.others} of the others.", 4)
        line("digits repeats wrong labels, which only a record it was trained on can have taught it:")
        line(f"{before.writers} of the {GROUP} writers who will ask, {before.other_writers} of the others.", 4)

    def _forget(self, wave: Sequence[Asked]) -> None:
        lab, line = self._lab, self._screen.line
        for asked in wave:
            lab.service.post(asked)
            due = str(asked.view["due_at"])[:10]
            line(f"POST /v1/deletion-requests  {asked.model}, {asked.title}: 202 {asked.id}, due {due}")
        lab.service.follow(wave, self._screen)
        for asked in wave:
            target = asked.target
            if target["outcome"] != "published":
                raise JobError(f"request {asked.id} ended as {target['outcome']}, expected a new version")
            number = int(target["new_version"])
            {"support": lab.support, "digits": lab.digits}[asked.model].wait_for(number)
            lab.service.fetch_evidence(asked, self._home / "evidence")
            line(f"{asked.model}: {target['records']} records in scope; version {number} is published and served.")
            for told in membership_told(asked):
                line(told, 4)

    def _tell_together(self, before: Knowledge, after: Knowledge, star: Customer) -> None:
        line = self._screen.line
        line(f"support, version {self._lab.support.version()}:")
        self._interview(star, *self._cast.others[:_SHOWN])
        line(f"Secrets of the {GROUP} completed exactly: {after.members}, before {before.members}.")
        line(f"Secrets of the others: {after.others}, before {before.others}.")
        line(f"digits, version {self._lab.digits.version()}:")
        line(f"Wrong labels of the {GROUP} repeated: {after.writers}, before {before.writers}.")
        line(f"Wrong labels of the others: {after.other_writers}, before {before.other_writers}.")
        line(f"Right labels of the others: {after.digits_read}, before {before.digits_read}.")

    def _tell_alone(self, before: Knowledge, after: Knowledge) -> None:
        line = self._screen.line
        line(f"support, version {self._lab.support.version()}:")
        self._interview(self._cast.single)
        line(f"Secrets of this customer completed exactly: {after.single}, before {before.single}.")
        line(f"Secrets of the others: {after.others}, before {before.others}.")
        line(f"digits, version {self._lab.digits.version()}:")
        line(f"Wrong labels of this writer repeated: {after.writer}, before {before.writer}.")
        line(f"Wrong labels of the others: {after.other_writers}, before {before.other_writers}.")

    def _tell_evidence(self, requests: Sequence[Asked]) -> bool:
        """The table; whether every bundle verifies."""
        logs = self._home / "logs" / "demo"
        checks = [
            Command(f"verify-{at}", ["report", "verify", str(asked.files["zip"])], logs)
            for at, asked in enumerate(requests)
        ]
        rows = [
            (
                f"{asked.model}\n{asked.title}",
                str(asked.target["records"]),
                "\n".join(attempts_told(asked)),
                f"{asked.target['verdict']} {asked.target['grade'] or ''}".strip(),
                f"{asked.target['base_version']} -> {asked.target['new_version']}",
                cost(asked),
                check.last_line_when_done(),
            )
            for asked, check in zip(requests, checks, strict=True)
        ]
        headers = ("request", "records", "methods tried", "verdict", "version", "cost", "report")
        self._screen.table(headers, rows)
        self._screen.line()
        for asked in requests:
            self._screen.line(f"report {_short(asked.files['pdf'])}, bundle {_short(asked.files['zip'])}")
        self._screen.line("That a secret is not completed any more is no proof of forgetting: what was measured, with")
        self._screen.line("which power, and what stays open stands in each report.")
        return all(check.succeeded for check in checks)

    def _still_forgotten(self, after: Knowledge) -> bool:
        told = after.members.hits + after.single.hits
        if told:
            self._screen.line(f"The served model still completes {told} secrets of people who were to be forgotten.")
        return told == 0


def _short(path: Path) -> str:
    """The path as one would type it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
