"""Companion canaries: made-up records that the service plants among the data and deletes together with real ones.

Whether a deletion worked can be measured on few records only with little power. So each full training gets records
that belong to nobody: N IN are trained on, five times as many OUT never are, and which is which was drawn by a sealed
coin, so that the two differ in nothing but the training. Each deletion then takes some of the IN ones with it, and an
attack that tells these from the OUT ones shows what is left of everything deleted in that run (research: one-run
auditing, Steinke, Nasr, Jagielski, arXiv 2305.08846; randomised controls, Zhang et al., arXiv 2409.19798).

Half of them are regular, half are hard to learn (workers/lineage/canary_images.py, canary_texts.py). A commitment to
all contents, coins and kinds is made before the training: nobody can choose afterwards which canaries were IN, or which
are compared with each other. Seals of the first form leave the kinds out: there they must be what they always were,
natural and hard in turn by the number of the canary, which is sealed.
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.catalogue.lineage import CANARY_PREFIX
from service.errors import BadDataset, BadModel, BadParameters
from service.keyfiles import KEY_BYTES, stored_key
from workers.lineage.canary_images import image_columns
from workers.lineage.canary_texts import text_columns
from workers.lineage.duplicates import content_digests
from workers.lineage.tables import read_table, write_table
from workers.modeling.directories import canonical_json, sha256_json
from workers.modeling.records import MemoryRecords, Records

CANARIES = "canaries.parquet"
FEWEST = 73
"""IN canaries that one deletion needs for a margin of 0.10 on the AUC: power 0.70 at alpha 0.05 with five OUT for each,
0.80 with OUT ones without number."""
LARGEST_SHARE = 0.05
OUT_PER_IN = 5
NATURAL, HARD = "natural", "hard"
_KEY_FILE = "canary.key"
_SCHEMA, _WITHOUT_KINDS = "lethe/canaries/2", "lethe/canaries/1"
_DRAWN = "lethe/canaries/1"
"""What canaries are derived from has not changed since the first form."""
_FACTS = ("record_id", "subject_id", "kind", "inside", "spent")


@dataclass(frozen=True, eq=False)
class CanarySet:
    """All canaries of a training, M of them.

    `kinds` [M] are "natural" or "hard", `coins` bool [M] mark those that were trained on, `spent` bool [M] those that
    a deletion has used up. `commitment` is the SHA-256, in hex, of what `nonce` seals; `form` is that of the seal.
    """

    records: MemoryRecords
    kinds: NDArray[Any]
    coins: NDArray[np.bool_]
    spent: NDArray[np.bool_]
    nonce: bytes
    commitment: str
    form: str = _SCHEMA

    @cached_property
    def inside(self) -> MemoryRecords:
        """The records planted among the training data, spent ones included."""
        return self.records.subset(np.flatnonzero(self.coins).tolist())

    @cached_property
    def outside(self) -> MemoryRecords:
        """The records never trained on."""
        return self.records.subset(np.flatnonzero(~self.coins).tolist())

    @cached_property
    def unspent(self) -> MemoryRecords:
        """The planted records that the model still holds."""
        return self.records.subset(np.flatnonzero(self.coins & ~self.spent).tolist())


def canary_count(size: int, share: float) -> int:
    """How many canaries are planted among `size` records; 0 where they would be more than 5 % of them."""
    count = max(int(share * size + 0.5), FEWEST)
    return count if share > 0 and count <= LARGEST_SHARE * size else 0


def plant_canaries(records: Records, share: float, key: bytes, seed: int = 0) -> CanarySet | None:
    """Make the canaries of a training on these records; None where the data is too small for them.

    The same records, share, seed and key give the same canaries, and nobody without the 32 bytes of the key can tell
    which of them were trained on. Nothing but the data's format goes into them. Raises BadDataset for images
    that cannot be decoded and where record ids look like those of canaries.
    """
    count = canary_count(len(records), share)
    if not count:
        return None
    total = (1 + OUT_PER_IN) * count
    root = _root(records, total, key, seed)
    kinds = _in_turn(total)
    draw = np.random.default_rng(int.from_bytes(_derived(root, "contents"), "big"))
    make = image_columns if "image" in records.roles else text_columns
    names = [f"{CANARY_PREFIX}{number:06d}" for number in range(1, total + 1)]
    made = MemoryRecords(records.task, names, names, make(records, kinds == HARD, draw))
    order = sorted(range(total), key=lambda at: _derived(root, f"coin {at}"))
    coins = np.zeros(total, dtype=bool)
    coins[order[:count]] = True
    unsealed = CanarySet(made, kinds, coins, np.zeros(total, dtype=bool), _derived(root, "nonce"), "")
    return replace(unsealed, commitment=_commitment(unsealed))


def _in_turn(total: int) -> NDArray[Any]:
    return np.where(np.arange(total) % 2 == 0, NATURAL, HARD)


def _root(records: Records, total: int, key: bytes, seed: int) -> bytes:
    """The secret that everything about one set of canaries is derived from."""
    if len(key) != KEY_BYTES:
        raise BadParameters(f"the key of canaries has {KEY_BYTES} bytes, this one {len(key)}")
    ids = np.asarray(records.ids).tolist()
    if any(name.startswith(CANARY_PREFIX) for name in ids):
        raise BadDataset(f"record ids beginning with {CANARY_PREFIX} are those of canaries: rename these records")
    data = hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()
    purpose = canonical_json([_DRAWN, records.task, sorted(records.roles), total, seed, data])
    return hashlib.blake2b(purpose, key=key, digest_size=KEY_BYTES).digest()


def _derived(root: bytes, purpose: str) -> bytes:
    return hashlib.blake2b(purpose.encode(), key=root, digest_size=KEY_BYTES).digest()


def _commitment(canaries: CanarySet) -> str:
    records = canaries.records
    contents = [digest.hex() for digest in content_digests(records)]
    columns = [records.ids.tolist(), contents, canaries.coins.tolist()]
    if canaries.form != _WITHOUT_KINDS:
        columns.append(canaries.kinds.tolist())
    rows = [list(row) for row in zip(*columns, strict=True)]
    return sha256_json({"schema": canaries.form, "nonce": canaries.nonce.hex(), "canaries": rows})


def verify_commitment(canaries: CanarySet, commitment: str) -> bool:
    """Whether ids, contents, coins and kinds are those that were committed to before the training."""
    unsealed = canaries.form == _WITHOUT_KINDS
    if unsealed and not np.array_equal(canaries.kinds, _in_turn(len(canaries.records))):
        return False
    return _commitment(canaries) == commitment


def companions(canaries: CanarySet, count: int) -> list[str]:
    """Ids of `count` planted canaries not yet spent, sorted; none where fewer are left.

    The same for every attempt on the same version, and drawn by the sealed nonce.
    """
    left = canaries.unspent.ids.tolist()
    if not 0 < count <= len(left):
        return []
    return sorted(sorted(left, key=lambda name: _derived(canaries.nonce, f"spend {name}"))[:count])


def spending(canaries: CanarySet, ids: Collection[str]) -> CanarySet:
    """The canaries with these marked as spent too."""
    return replace(canaries, spent=canaries.spent | np.isin(canaries.records.ids, np.array(sorted(ids), dtype=str)))


def taken_back(canaries: CanarySet) -> CanarySet:
    """The canaries as a training finds them that takes all planted ones in again."""
    return replace(canaries, spent=np.zeros_like(canaries.spent))


def newly_spent(before: CanarySet | None, after: CanarySet | None) -> MemoryRecords | None:
    """The canaries that were deleted between two versions; None where the versions do not hold the same ones."""
    if before is None or after is None or before.commitment != after.commitment:
        return None
    return before.records.subset(np.flatnonzero(before.coins & after.spent & ~before.spent).tolist())


def write_canaries(canaries: CanarySet, folder: Path) -> None:
    """canaries.parquet in a folder, mode 0600."""
    columns: dict[str, Any] = {
        "record_id": canaries.records.ids.tolist(),
        "subject_id": canaries.records.subjects.tolist(),
    }
    columns |= canaries.records.columns
    columns |= {"kind": canaries.kinds.tolist(), "inside": canaries.coins, "spent": canaries.spent}
    facts = {"schema": canaries.form, "task": canaries.records.task, "nonce": canaries.nonce.hex()}
    facts["commitment"] = canaries.commitment
    write_table(pa.table(columns).replace_schema_metadata(facts), folder / CANARIES)


def read_canaries(folder: Path) -> CanarySet | None:
    """The canaries in a folder, None where there are none. Raises BadModel for a damaged file."""
    table = read_table(folder / CANARIES, _FACTS)
    if table is None:
        return None
    facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    try:
        if facts["schema"] not in (_SCHEMA, _WITHOUT_KINDS):
            raise ValueError("another schema")
        task, nonce, commitment = facts["task"], bytes.fromhex(facts["nonce"]), facts["commitment"]
    except (KeyError, ValueError) as error:
        raise BadModel(f"{CANARIES} beside the model is not a table of canaries") from error
    columns = {name: table[name].to_pylist() for name in table.column_names if name not in _FACTS}
    records = MemoryRecords(task, table["record_id"].to_pylist(), table["subject_id"].to_pylist(), columns)
    coins, spent = (np.array(table[name].to_pylist(), dtype=bool) for name in ("inside", "spent"))
    kinds = np.array(table["kind"].to_pylist(), dtype=str)
    return CanarySet(records, kinds, coins, spent, nonce, commitment, facts["schema"])


def canary_key(home: Path) -> bytes:
    """The 32 bytes that canaries of an installation are drawn with, made when first asked for (mode 0600).

    Of several processes the first wins. Raises Unavailable where the file holds something else.
    """
    return stored_key(home / _KEY_FILE)
