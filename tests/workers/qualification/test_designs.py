"""Forget sets: of the sizes asked for, from the records of their design, disjoint in a pack, the same again."""

import numpy as np
import pyarrow as pa

from tests.workers import factories
from workers.qualification.designs import (
    COPIES,
    Source,
    copied,
    draw_jobs,
    hardest,
    packed,
    plant_copies,
)

IDS = np.array([f"r{at:04d}" for at in range(1000)])
RANDOM = Source("random", IDS, {})


def test_sets_have_their_size_and_follow_from_the_seed() -> None:
    jobs, notes = draw_jobs([RANDOM], [1, 10, 100], 4, 1000, 0)
    assert [(job.size, len(set(job.ids))) for job in jobs] == [(1, 1), (10, 10), (100, 100)] * 4
    assert notes == []
    assert len({job.name for job in jobs}) == 12
    assert draw_jobs([RANDOM], [1, 10, 100], 4, 1000, 0)[0] == jobs
    assert draw_jobs([RANDOM], [1, 10, 100], 4, 1000, 1)[0] != jobs


def test_sets_of_more_than_a_tenth_of_the_data_are_left_out_and_said_so() -> None:
    jobs, notes = draw_jobs([RANDOM], [10, 101], 2, 1000, 0)
    assert [job.size for job in jobs] == [10, 10]
    assert notes == ["random: no sets of 101 records, the data is too small for them"]


def test_hard_sets_are_drawn_from_the_hardest_records() -> None:
    memorization = np.arange(1000.0)
    memorization[999] = np.nan
    ranked = hardest(IDS, memorization)
    assert (ranked[0], ranked[-1]) == ("r0998", "r0999")
    jobs, _ = draw_jobs([Source("memorised", ranked, {}, ranked=True)], [10, 40], 5, 1000, 0)
    for job in jobs:
        assert min(job.ids) >= ("r0949" if job.size == 10 else "r0919")
    assert len({job.ids for job in jobs}) == 10


def test_packs_are_disjoint_and_small_enough() -> None:
    sources = [RANDOM, Source("memorised", IDS[::-1], {}, ranked=True)]
    jobs, _ = draw_jobs(sources, [1, 10, 40], 6, 1000, 0)
    packs = packed(jobs, 100)
    assert sorted(job.name for pack in packs for job in pack) == sorted(job.name for job in jobs)
    assert len(packs) < len(jobs) / 3
    for pack in packs:
        names = [name for job in pack for name in job.ids]
        assert len(names) == len(set(names)) <= 100


def test_copies_go_with_their_record_and_are_not_counted() -> None:
    table = pa.table({"left": ["r0001", "r0002", "r0008", "gone"], "right": ["r0002", "r0003", "r0009", "r0005"]})
    people = factories.digits(20, 0)[0]
    people.ids = IDS[:20]
    found = copied(people, table)
    assert found["r0001"] == ["r0002", "r0003"]
    assert found["r0009"] == ["r0008"]
    assert set(found) == {"r0001", "r0002", "r0003", "r0008", "r0009"}
    assert copied(people, None) == {}
    jobs, notes = draw_jobs([Source("duplicated", np.array(sorted(found)), found)], [2, 3], 3, 1000, 0)
    assert {job.ids for job in jobs} == {("r0001", "r0002", "r0003", "r0008", "r0009")}
    assert notes == ["duplicated: no sets of 3 records, the data is too small for them"]


def test_planted_copies_say_the_same_under_other_ids() -> None:
    people = factories.digits(200, 0)[0]
    made = plant_copies(people, [5, 100], 0)
    assert made is not None
    copies, names = made
    assert len(names) == 10
    assert len(copies) == COPIES * 10
    for name, others in names.items():
        rows = copies.rows_of(others)
        own = people.rows_of([name])[0]
        assert {copies.columns["image"][row] for row in rows} == {people.columns["image"][own]}
        assert {str(copies.subjects[row]) for row in rows} == {str(people.subjects[own])}
    assert plant_copies(people, [100], 0) is None
