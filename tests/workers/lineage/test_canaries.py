"""Canaries: how many, drawn by sealed coins, the same again under the same key, spent once, kept safely on disk."""

import multiprocessing
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.errors import BadDataset, BadModel, BadParameters, Unavailable
from tests.workers.factories import digits
from workers.lineage.canaries import (
    CanarySet,
    canary_count,
    canary_key,
    companions,
    newly_spent,
    plant_canaries,
    read_canaries,
    spending,
    taken_back,
    verify_commitment,
    write_canaries,
)
from workers.lineage.duplicates import content_digests
from workers.modeling.directories import sha256_json
from workers.modeling.records import MemoryRecords

KEY = b"c" * 32


def texts(count: int = 1500, classes: int = 0) -> MemoryRecords:
    """One text of ten words for each person, with labels where there are classes."""
    names = [f"p{at:05d}" for at in range(count)]
    columns: dict[str, list[object]] = {"text": ["these are the ten words that everybody writes in here"] * count}
    if classes:
        columns["label"] = [at % classes for at in range(count)]
    return MemoryRecords("text-classification" if classes else "causal-lm", names, names, columns)


def planted(records: MemoryRecords | None = None, key: bytes = KEY, seed: int = 0) -> CanarySet:
    canaries = plant_canaries(records or texts(), 0.01, key, seed)
    assert canaries is not None
    return canaries


def written(canaries: CanarySet, folder: Path) -> bytes:
    folder.mkdir(exist_ok=True)
    write_canaries(canaries, folder)
    return (folder / "canaries.parquet").read_bytes()


@pytest.mark.parametrize(
    ("size", "share", "count"),
    [
        (0, 0.01, 0), (1459, 0.01, 0), (1460, 0.01, 73), (7349, 0.01, 73), (7350, 0.01, 74), (60_000, 0.01, 600),
        (60_000, 0.0, 0), (60_000, 0.001, 73), (60_000, 0.05, 3000), (60_000, 0.051, 0), (1000, 0.05, 0),
    ],
)  # fmt: skip
def test_a_share_at_least_73_and_none_where_that_is_more_than_a_twentieth(size: int, share: float, count: int) -> None:
    assert canary_count(size, share) == count


def test_small_data_and_a_share_of_nothing_get_no_canaries() -> None:
    assert plant_canaries(texts(1459), 0.01, KEY) is None
    assert plant_canaries(texts(1500), 0.0, KEY) is None
    assert plant_canaries(texts(0), 0.01, KEY) is None


@pytest.mark.parametrize("records", [texts(), texts(classes=4), digits(1797, 0)[0]], ids=["lm", "labels", "images"])
def test_five_out_for_each_in_half_of_them_hard_all_different(records: MemoryRecords) -> None:
    canaries = planted(records)
    count = canary_count(len(records), 0.01)
    assert (len(canaries.inside), len(canaries.outside)) == (count, 5 * count)
    assert (canaries.kinds == "hard").sum() == (canaries.kinds == "natural").sum() == 3 * count
    assert not set(canaries.inside.ids) & set(canaries.outside.ids)
    assert canaries.records.ids[[0, -1]].tolist() == ["lethe-canary-000001", f"lethe-canary-{6 * count:06d}"]
    assert canaries.records.subjects.tolist() == canaries.records.ids.tolist()
    assert canaries.inside.task == records.task
    assert canaries.inside.roles == records.roles
    first = records.roles[0]
    assert len(set(canaries.records.columns[first])) == 6 * count
    assert not canaries.spent.any()


@pytest.mark.parametrize("records", [texts(classes=3), digits(1797, 0)[0]], ids=["texts", "images"])
def test_the_same_data_seed_and_key_give_the_same_bytes_and_others_give_others(
    records: MemoryRecords, tmp_path: Path
) -> None:
    first = planted(records)
    content = written(first, tmp_path / "a")
    assert written(planted(records), tmp_path / "b") == content
    fewer = records.subset(range(len(records) - 1))
    for other in (planted(records, b"o" * 32), planted(records, seed=1), planted(fewer)):
        assert other.commitment != first.commitment
        assert not set(other.records.columns[records.roles[0]]) & set(first.records.columns[records.roles[0]])
        assert other.coins.tolist() != first.coins.tolist()


def test_coins_are_fair_and_know_nothing_of_kind_or_label() -> None:
    records = texts(1460, classes=2)
    times = np.zeros(438)
    hard, ones = [], []
    for number in range(120):
        canaries = planted(records, number.to_bytes(32, "big"))
        times += canaries.coins
        hard.append((canaries.kinds[canaries.coins] == "hard").mean())
        ones.append(np.mean(canaries.inside.columns["label"]) - np.mean(canaries.outside.columns["label"]))
    # Each is IN with probability 1/6: binomial(120, 1/6) has mean 20 and standard deviation 4.1.
    assert times.mean() == 20
    assert np.all(np.abs(times - 20) < 4.5 * 4.1)
    assert 0.85 < times.std() / 4.08 < 1.15
    for shares, middle in ((hard, 0.5), (ones, 0.0)):
        assert abs(np.mean(shares) - middle) < 4 * np.std(shares) / np.sqrt(120)


def test_a_commitment_seals_every_coin_every_content_and_every_name() -> None:
    canaries = planted(texts(classes=3))
    assert verify_commitment(canaries, canaries.commitment)
    assert not verify_commitment(canaries, planted(seed=1).commitment)
    for at in (0, 100, 437):
        coins = canaries.coins.copy()
        coins[at] ^= True
        assert not verify_commitment(replace(canaries, coins=coins), canaries.commitment)
    for role, value in (("text", "something else"), ("label", 2), ("label", 1)):
        columns = {name: list(values) for name, values in canaries.records.columns.items()}
        if columns[role][7] == value:
            continue
        columns[role][7] = value
        names = canaries.records.ids
        changed = MemoryRecords(canaries.records.task, names, names, columns)
        assert not verify_commitment(replace(canaries, records=changed), canaries.commitment)
    for at in (0, 437):
        kinds = canaries.kinds.copy()
        kinds[at] = "natural" if kinds[at] == "hard" else "hard"
        assert not verify_commitment(replace(canaries, kinds=kinds), canaries.commitment)
    turned = canaries.records.subset(range(437, -1, -1))
    assert not verify_commitment(replace(canaries, records=turned), canaries.commitment)
    # Contents and coins alone do not give it away: who guesses them cannot check the guess.
    assert not verify_commitment(replace(canaries, nonce=bytes(32)), canaries.commitment)


def sealed_in_the_first_form(canaries: CanarySet) -> CanarySet:
    """The same canaries as versions before kinds were sealed wrote them."""
    contents = [digest.hex() for digest in content_digests(canaries.records)]
    rows = zip(canaries.records.ids.tolist(), contents, canaries.coins.tolist(), strict=True)
    told = {"schema": "lethe/canaries/1", "nonce": canaries.nonce.hex(), "canaries": [list(row) for row in rows]}
    return replace(canaries, form="lethe/canaries/1", commitment=sha256_json(told))


def test_a_seal_without_kinds_opens_where_these_are_the_ones_that_were_always_planted(tmp_path: Path) -> None:
    old = sealed_in_the_first_form(planted(texts(classes=3)))
    assert verify_commitment(old, old.commitment)
    kinds = old.kinds.copy()
    kinds[[0, 1]] = kinds[[1, 0]]
    assert not verify_commitment(replace(old, kinds=kinds), old.commitment)
    # Spent and written again it keeps its form; neither form passes for the other.
    spent = spending(old, companions(old, 10))
    write_canaries(spent, tmp_path)
    again = read_canaries(tmp_path)
    assert again is not None
    assert (again.form, len(again.unspent)) == ("lethe/canaries/1", len(old.inside) - 10)
    assert verify_commitment(again, old.commitment)
    new = planted(texts(classes=3))
    assert not verify_commitment(replace(new, form=old.form), new.commitment)
    assert not verify_commitment(replace(old, form=new.form), old.commitment)


def test_spent_canaries_are_not_spent_again_and_the_commitment_still_holds() -> None:
    canaries = planted(texts(14_600))
    assert len(canaries.inside) == 146
    first = companions(canaries, 73)
    after = spending(canaries, first)
    assert len(set(first)) == 73
    assert set(first) <= set(canaries.inside.ids)
    assert set(after.unspent.ids) == set(canaries.inside.ids) - set(first)
    assert len(after.inside) == 146
    assert verify_commitment(after, canaries.commitment)
    second = companions(after, 73)
    assert set(first) | set(second) == set(canaries.inside.ids)
    assert len(spending(after, second).unspent) == 0
    assert companions(spending(after, second), 1) == []
    assert not canaries.spent.any()
    assert len(taken_back(spending(after, second)).unspent) == 146


def test_every_attempt_on_a_version_gets_the_same_ones() -> None:
    canaries = planted(texts(14_600))
    assert companions(canaries, 20) == companions(canaries, 20)
    assert set(companions(canaries, 20)) < set(companions(canaries, 40))
    assert companions(canaries, 147) == companions(canaries, 0) == []


def test_what_was_deleted_between_two_versions() -> None:
    canaries, other = planted(texts(14_600)), planted(texts(14_600, classes=3))
    first = spending(canaries, companions(canaries, 30))
    second = spending(first, companions(first, 20))
    found, nothing = newly_spent(first, second), newly_spent(canaries, canaries)
    assert found is not None
    assert found.ids.tolist() == companions(first, 20)
    assert nothing is not None
    assert len(nothing) == 0
    assert newly_spent(canaries, other) is newly_spent(None, first) is newly_spent(first, None) is None


@pytest.mark.parametrize("records", [texts(classes=3), digits(1797, 0)[0]], ids=["texts", "images"])
def test_canaries_come_back_from_disk_readable_by_their_owner_alone(records: MemoryRecords, tmp_path: Path) -> None:
    assert read_canaries(tmp_path) is None
    canaries = planted(records)
    canaries = spending(canaries, companions(canaries, 10))
    write_canaries(canaries, tmp_path)
    path = tmp_path / "canaries.parquet"
    assert path.stat().st_mode & 0o777 == 0o600
    names = ["record_id", "subject_id", *records.roles, "kind", "inside", "spent"]
    assert pq.read_table(path).column_names == names
    again = read_canaries(tmp_path)
    assert again is not None
    assert verify_commitment(again, canaries.commitment)
    assert again.commitment == canaries.commitment
    assert again.records.columns == canaries.records.columns
    for name in ("kinds", "coins", "spent"):
        assert np.array_equal(getattr(again, name), getattr(canaries, name))
    assert (again.records.task, again.inside.roles) == (records.task, records.roles)


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    content = written(planted(), tmp_path)
    path = tmp_path / "canaries.parquet"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadModel, match=r"canaries\.parquet.*damaged"):
        read_canaries(tmp_path)
    facts = {name: pa.array(["x"]) for name in ("record_id", "subject_id", "kind", "inside", "spent")}
    for metadata in (None, {"schema": "other"}, {"schema": "lethe/canaries/1", "task": "causal-lm", "nonce": "xyz"}):
        pq.write_table(pa.table(facts).replace_schema_metadata(metadata), path)
        with pytest.raises(BadModel, match="not a table of canaries"):
            read_canaries(tmp_path)


def test_data_that_looks_like_canaries_and_short_keys_are_refused() -> None:
    records = texts()
    records.ids = np.array(["lethe-canary-000001", *records.ids[1:]])
    with pytest.raises(BadDataset, match="beginning with lethe-canary-"):
        planted(records)
    with pytest.raises(BadParameters, match="32 bytes, this one 4"):
        planted(key=b"tiny")


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    key = canary_key(home)
    assert len(key) == 32
    assert canary_key(home) == key
    assert (home / "canary.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in home.iterdir()] == ["canary.key"]
    assert canary_key(tmp_path / "other") != key
    for damaged in ("", "zz" * 32, "ab" * 31):
        (home / "canary.key").write_text(damaged)
        with pytest.raises(Unavailable, match="64 hex digits"):
            canary_key(home)


def test_processes_that_ask_for_the_key_at_once_get_the_same(tmp_path: Path) -> None:
    for number in range(5):
        with multiprocessing.get_context("fork").Pool(4) as pool:
            keys = pool.map(canary_key, [tmp_path / str(number)] * 8, chunksize=1)
        assert len(set(keys)) == 1
        assert [path.name for path in (tmp_path / str(number)).iterdir()] == ["canary.key"]


def test_none_of_this_needs_torch() -> None:
    modules = "import workers.lineage.canaries, workers.lineage.reserve, workers.lineage.duplicates"
    seen = "print(sorted({'torch', 'transformers', 'scipy', 'sklearn'} & set(sys.modules)))"
    code = f"import sys\n{modules}\n{seen}"
    made = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert made.stdout.strip() == "[]"
