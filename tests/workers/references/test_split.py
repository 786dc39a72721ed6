"""Halves of a pool: disjoint by subject, complementary, balanced, and everybody judged by equally many references."""

import numpy as np
import pytest

from service.errors import BadDataset, BadParameters
from workers.references.split import Split, plan_split, pool_key, reserve_subjects, sides_of

KEY = pool_key(0, "00" * 32)


def people(count: int, seed: int = 0) -> np.ndarray:
    """Between 1 and 12 records a subject."""
    draw = np.random.default_rng(seed)
    return np.repeat([f"s{at:04d}" for at in range(count)], draw.integers(1, 13, count))


def planned(count: int = 16, size: int = 100) -> tuple[Split, np.ndarray, np.ndarray]:
    subjects, held_out = people(size), np.char.add("h", people(50, 1))
    return plan_split(subjects, held_out, count, KEY), subjects, held_out


def test_members_of_a_pair_divide_the_records_between_them() -> None:
    split, _, _ = planned()
    for pair in range(8):
        first, second = split.trained_by(2 * pair), split.trained_by(2 * pair + 1)
        assert np.array_equal(first, ~second)
        assert np.array_equal(split.out_of(2 * pair), ~first)
        assert np.array_equal(split.out_of(2 * pair + 1), ~second)


def test_all_records_of_a_subject_are_in_the_same_half() -> None:
    split, subjects, _ = planned()
    for number in range(16):
        trained = split.trained_by(number)
        assert not set(subjects[trained]) & set(subjects[~trained])


def test_halves_are_balanced_by_records() -> None:
    split, subjects, _ = planned()
    sizes = [int(split.trained_by(number).sum()) for number in range(16)]
    assert max(abs(2 * size - len(subjects)) for size in sizes) <= 12  # half the largest subject on either side


def test_everybody_is_out_of_exactly_one_member_of_each_pair() -> None:
    split, subjects, held_out = planned(24)
    sides = sides_of(24)
    for of, size in ((split.out_of, len(subjects)), (split.held_out_of, len(held_out))):
        for pairs in sides.values():
            counts = sum(of(2 * pair + half).astype(int) for pair in pairs for half in (0, 1))
            assert np.array_equal(counts, np.full(size, len(pairs)))


def test_coins_of_held_out_subjects_are_fair_and_not_the_same_in_every_pair() -> None:
    subjects = np.array([f"h{at}" for at in range(4000)])
    split = plan_split(people(10), subjects, 16, KEY)
    shares = split.held_out.mean(axis=0)
    assert np.all(np.abs(shares - 0.5) < 4 * 0.5 / np.sqrt(4000))
    assert np.all(np.abs(np.corrcoef(split.held_out.T) - np.eye(8)) < 4 / np.sqrt(4000))


def test_halves_of_different_pairs_are_unrelated() -> None:
    subjects = np.array([f"s{at}" for at in range(4000)])
    split = plan_split(subjects, subjects[:0], 16, KEY)
    assert np.all(np.abs(np.corrcoef(split.out.T) - np.eye(8)) < 4 / np.sqrt(4000))


def test_the_same_seed_and_data_give_the_same_halves_and_others_give_others() -> None:
    subjects = people(100)
    first = plan_split(subjects, subjects[:0], 8, pool_key(3, "ab"))
    assert np.array_equal(first.out, plan_split(subjects, subjects[:0], 8, pool_key(3, "ab")).out)
    for other in (pool_key(4, "ab"), pool_key(3, "cd")):
        assert not np.array_equal(first.out, plan_split(subjects, subjects[:0], 8, other).out)


def test_the_order_of_the_records_does_not_matter() -> None:
    subjects = people(60)
    order = np.random.default_rng(1).permutation(len(subjects))
    straight = plan_split(subjects, subjects[:0], 8, KEY).out
    assert np.array_equal(straight[order], plan_split(subjects[order], subjects[:0], 8, KEY).out)


def test_reserved_people_alone_are_trained_on() -> None:
    subjects, held_out = people(200), people(40, 2)
    reserved = reserve_subjects(subjects, 0.3, KEY)
    assert not set(subjects[reserved]) & set(subjects[~reserved])
    assert 0.3 <= reserved.mean() < 0.3 + 12 / len(subjects)
    split = plan_split(subjects, held_out, 16, KEY, reserved)
    for number in range(16):
        trained = split.trained_by(number)
        assert not trained[~reserved].any()
        assert abs(2 * int(trained.sum()) - int(reserved.sum())) <= 12
    counts = sum(split.out_of(number).astype(int) for number in range(16))
    assert np.array_equal(counts, np.full(len(subjects), 8))


@pytest.mark.parametrize(
    ("count", "method", "gate"),
    [(8, 0, 4), (14, 0, 7), (16, 4, 4), (18, 4, 5), (32, 8, 8), (64, 16, 16)],
)
def test_sides(count: int, method: int, gate: int) -> None:
    sides = sides_of(count)
    assert (len(sides["method"]), len(sides["gate"])) == (method, gate)
    assert sorted(sides["method"] + sides["gate"]) == list(range(count // 2))


@pytest.mark.parametrize(("count", "told"), [(0, "no pool"), (6, "no pool"), (17, "take 18"), (2000, "too many")])
def test_sizes_that_make_no_pool(count: int, told: str) -> None:
    with pytest.raises(BadParameters, match=told):
        plan_split(people(10), people(10), count, KEY)


def test_one_person_cannot_be_divided() -> None:
    with pytest.raises(BadDataset, match="two people"):
        plan_split(np.array(["s", "s"]), np.array([], dtype=str), 8, KEY)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2])
def test_a_reserve_is_a_part(share: float) -> None:
    with pytest.raises(BadParameters, match="share"):
        reserve_subjects(people(10), share, KEY)
