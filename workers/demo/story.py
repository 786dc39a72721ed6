"""The demo: what two served models know, four deletion requests over HTTP, what they know then. All of it measured."""

import time
from collections.abc import Sequence
from pathlib import Path

from service.errors import JobError
from workers.demo.asking import Asked, attempts_told, cost, deciding_checks
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
    screen.line(f"The people are made up. State, logs and reports: {home}", 0)
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
        screen.heading("5. What was asked, and the evidence")
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

    def _interview(self, who: Customer) -> None:
        """Ask for both secrets of a customer and show the answers."""
        pairs = who.secrets()
        answers = complete(self._lab.support, [prompt for prompt, _ in pairs])
        for (prompt, secret), answer in zip(pairs, answers, strict=True):
            self._screen.said(prompt, answer, "(true)" if secret in answer else f"(not {secret})")

    def _tell_known(self, before: Knowledge, star: Customer) -> None:
        screen = self._screen
        screen.line("support completes its customers' secrets:")
        for who in (star, *self._cast.others[:_SHOWN]):
            self._interview(who)
        screen.line(
            f"Phone numbers and addresses completed exactly: {before.members} of the {GROUP} customers who will ask,"
        )
        screen.line(f"{before.others} of {len(self._cast.others)} others.")
        screen.line("digits repeats wrong labels that only its training records hold:")
        screen.line(f"{before.writers} of the {GROUP} writers who will ask, {before.other_writers} of the others.")

    def _forget(self, wave: Sequence[Asked]) -> None:
        lab, screen = self._lab, self._screen
        for asked in wave:
            lab.service.post(asked)
            due = str(asked.view["due_at"])[:10]
            screen.line(f"POST /v1/deletion-requests  {asked.model}, {asked.title}: 202 {asked.id}, due {due}")
        lab.service.follow(wave, screen)
        for asked in wave:
            target = asked.target
            if target["outcome"] != "published":
                raise JobError(f"request {asked.id} ended as {target['outcome']}, expected a new version")
            {"support": lab.support, "digits": lab.digits}[asked.model].wait_for(int(target["new_version"]))
            lab.service.fetch_evidence(asked, self._home / "evidence")
            screen.line(
                f"{asked.model}: {target['records']} records forgotten, version {target['new_version']} is served."
            )
            for line in deciding_checks(asked):
                screen.line(line, 4)

    def _tell_together(self, before: Knowledge, after: Knowledge, star: Customer) -> None:
        screen = self._screen
        screen.line(f"support, version {self._lab.support.version()}:")
        for who in (star, *self._cast.others[:_SHOWN]):
            self._interview(who)
        screen.line(f"Secrets completed exactly: {after.members} of the {GROUP} who asked (before: {before.members}),")
        screen.line(f"{after.others} of the others (before: {before.others}).")
        screen.line(f"digits, version {self._lab.digits.version()}: wrong labels repeated:")
        screen.line(f"{after.writers} of the {GROUP} who asked (before: {before.writers}),")
        screen.line(f"{after.other_writers} of the others (before: {before.other_writers});")
        screen.line(f"their rightly labelled digits answered: {after.digits_read} (before: {before.digits_read}).")

    def _tell_alone(self, before: Knowledge, after: Knowledge) -> None:
        screen = self._screen
        screen.line(f"support, version {self._lab.support.version()}:")
        self._interview(self._cast.single)
        screen.line(
            f"Secrets completed exactly: {after.single} (before: {before.single}); "
            f"others {after.others} (before: {before.others})."
        )
        screen.line(
            f"digits, version {self._lab.digits.version()}: wrong labels repeated: {after.writer} "
            f"(before: {before.writer}); others {after.other_writers} (before: {before.other_writers})."
        )

    def _tell_evidence(self, requests: Sequence[Asked]) -> bool:
        logs = self._home / "logs" / "demo"
        checks = [
            Command(f"verify-{at}", ["report", "verify", str(asked.files["zip"])], logs)
            for at, asked in enumerate(requests)
        ]
        rows = []
        for asked, check in zip(requests, checks, strict=True):
            target = asked.target
            rows.append(
                (
                    f"{asked.model}: {asked.title}",
                    str(target["records"]),
                    "\n".join(attempts_told(asked)),
                    f"{target['base_version']} -> {target['new_version']}",
                    f"{target['verdict']} {target['grade'] or ''}".strip(),
                    cost(asked),
                    check.last_line_when_done(),
                )
            )
        headers = ("request", "records", "methods tried", "version", "verdict", "cost", "lethe report verify")
        self._screen.table(headers, rows)
        self._screen.line()
        for asked in requests:
            self._screen.line(f"{asked.model}, {asked.title}: {asked.files['pdf']} and {asked.files['zip'].name}")
        self._screen.line(
            "That a secret is no longer completed is no proof; what the reports can and cannot show is in their"
        )
        self._screen.line("limits. `lethe report verify BUNDLE.zip` checks one again, offline.")
        return all(check.succeeded for check in checks)

    def _still_forgotten(self, after: Knowledge) -> bool:
        told = after.members.hits + after.single.hits
        if told:
            self._screen.line(f"The served model still completes {told} secrets of people who were to be forgotten.")
        return told == 0
