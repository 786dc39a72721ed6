"""A candidate is not judged by the attack that its method was trained against."""

from pathlib import Path

from service.verification.policy import Policy
from service.verification.verdict import disagreements
from tests.workers import factories
from tests.workers.conftest import Line
from tests.workers.synthetic import World
from workers.planning.assessment import Facts, assess
from workers.planning.attempt import run_attempt
from workers.planning.opposed import opposed_by

POLICY = Policy()


def test_what_it_was_trained_against_cannot_pass_it() -> None:
    """The same scores: one candidate passes, the other stays undecided, whatever the attack would have said."""
    tables = World(forget=800, held_out=1200, per_subject=4, seed=1).tables(original=2.0, clean=0.0)
    pair = {"original": tables["original"], "candidate": tables["clean"]}
    free = assess(pair, "image-classification", POLICY)
    assert free.verdict == "pass"
    found = assess(pair, "image-classification", POLICY, facts=Facts(opposed=frozenset({"membership_auc"})))
    check = found.check("membership_auc")
    assert check is not None
    assert (check.estimate, check.role, check.verdict) == (None, "gate", "inconclusive")
    assert "trained against this very attack" in (check.reason or "")
    assert (found.verdict, found.grade) == ("inconclusive", None)
    assert disagreements(found, POLICY.verification) == []
    control = found.check("positive_control")
    assert control is not None
    assert control.estimate is not None


def test_the_training_record_says_who_made_it(digits_line: Line, tmp_path: Path) -> None:
    problem = digits_line.problem(40)
    quick = {"epochs": 0.1, "visits": 1}
    run_attempt("membership_loss", quick, problem, factories.context(), tmp_path / "opposed")
    run_attempt("finetune", {"epochs": 0.1}, problem, factories.context(), tmp_path / "plain")
    assert opposed_by(tmp_path / "opposed") == {"membership_auc"}
    assert opposed_by(tmp_path / "plain") == frozenset()
    assert opposed_by(tmp_path) == frozenset()
