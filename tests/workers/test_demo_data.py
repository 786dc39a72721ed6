"""The demo's world: the same every time, with secrets that only its own people have, and readable as a data set."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest

from service.datasets.records import open_records
from service.errors import BadParameters
from service.verification.policy import load_policy
from workers.demo.cast import GROUP, choose_cast
from workers.demo.conversations import RECORDS_EACH, conversation, customers
from workers.demo.digits import NOISE, ROWS_EACH, digits
from workers.demo.lab import MARKER, prepare_home
from workers.demo.world import CUSTOMERS, STRANGERS, WRITERS, make_world
from workers.modeling.recipe import load_recipe


def test_customers_are_different_people_and_the_same_every_time() -> None:
    people = customers(CUSTOMERS + STRANGERS, 1)
    assert people == customers(CUSTOMERS + STRANGERS, 1)
    assert people != customers(CUSTOMERS + STRANGERS, 2)
    for of in ("subject_id", "name", "email", "phone"):
        assert len({getattr(who, of) for who in people}) == len(people), of
    assert all(re.fullmatch(r"555( \d\d){3}", who.phone) for who in people)
    assert all(who.email.endswith("@example.org") for who in people)


def test_a_conversation_holds_the_secrets_its_customer_is_asked_for() -> None:
    fewest, most = RECORDS_EACH
    sizes = Counter()
    for who in customers(50, 3):
        turns = conversation(who)
        assert turns == conversation(who)
        assert fewest <= len(turns) <= most
        assert len({prompt for prompt, _ in turns}) == len(turns)
        sizes[len(turns)] += 1
        answers = dict(turns)
        for prompt, secret in who.secrets():
            assert secret in answers[prompt]
            assert secret not in prompt
            assert sum(secret in completion for completion in answers.values()) >= 3
        assert all(prompt.startswith(f"{who.name}: ") for prompt, _ in turns)
    assert len(sizes) == most - fewest + 1


def test_digits_are_real_images_with_labels_wrong_at_the_same_rate_everywhere() -> None:
    train, held_out = digits(WRITERS, 1)
    assert (train, held_out) == digits(WRITERS, 1)
    assert len(train) == WRITERS * ROWS_EACH
    assert len(train) + len(held_out) == 1797
    assert not {each.subject_id for each in train} & {each.subject_id for each in held_out}
    assert all(each.image.startswith(b"\x89PNG") for each in train)
    for part in (train, held_out):
        rate = sum(each.mislabelled for each in part) / len(part)
        assert abs(rate - NOISE) < 4 * (NOISE * (1 - NOISE) / len(part)) ** 0.5
    assert {each.label for each in train} == set(range(10))


def test_the_world_is_written_as_data_sets_recipes_and_a_policy(tmp_path: Path) -> None:
    world = make_world(tmp_path / "a")
    again = make_world(tmp_path / "b")
    for files, twin, task in [
        (world.digits, again.digits, "image-classification"),
        (world.support, again.support, "causal-lm"),
    ]:
        assert _digest(files.train) == _digest(twin.train)
        train, held_out = open_records(files.train, task), open_records(files.holdout, task)
        assert (len(train), len(held_out)) == (files.records, files.held_out)
        assert len(set(train.subjects.tolist())) == files.people
        assert len(set(train.ids.tolist())) == len(train)
        assert load_recipe(files.recipe).model.task == task
        assert load_policy(files.policy).batch.window == "1s"


def test_the_requests_have_the_sizes_that_the_gate_asks_for(tmp_path: Path) -> None:
    """The group is large enough to be judged (75 records, 10 people), the single person is not (33 records)."""
    world = make_world(tmp_path / "world")
    cast = choose_cast(world)
    records = Counter(open_records(world.support.train, "causal-lm").subjects.tolist())
    members = [who.subject_id for who in cast.members]
    assert len(set(members)) == len(set(cast.writers)) == GROUP >= 10
    assert sum(records[who] for who in members) >= 75
    assert records[cast.single.subject_id] < 33
    assert len(cast.written_by(cast.writers)) >= 75
    assert len(cast.written_by([cast.writer])) < 33
    assert cast.writer not in cast.writers
    assert cast.single not in cast.members
    assert len(cast.others) + GROUP + 1 == CUSTOMERS
    gone = len(cast.written_by([*cast.writers, cast.writer]))
    assert len(cast.written_by_others()) + gone == len(world.writers)
    assert sum(record.mislabelled for record in cast.written_by([cast.writer])) >= 3


def test_only_what_a_demo_made_is_removed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    prepare_home(home)
    (home / "left").write_text("over")
    prepare_home(home)
    assert [path.name for path in home.iterdir()] == [MARKER]
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "precious").write_text("mine")
    with pytest.raises(BadParameters, match="not made by a demo"):
        prepare_home(foreign)
    assert (foreign / "precious").is_file()
    with pytest.raises(BadParameters, match="not a folder"):
        prepare_home(foreign / "precious")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
