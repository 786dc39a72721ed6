"""The classes of encoded records."""

import numpy as np
import torch
from numpy.typing import NDArray

from workers.modeling.batching import Encoded
from workers.modeling.records import chunks

_BATCH = 256


def class_labels(part: Encoded) -> NDArray[np.int64]:
    """The label of each record [N]; 0 for all where records have none."""
    if "label" not in part.records.roles:
        return np.zeros(len(part), dtype=np.int64)
    found = [part.batch(list(rows), torch.device("cpu"))["labels"] for rows in chunks(len(part), _BATCH)]
    return np.asarray(torch.cat(found).numpy(), dtype=np.int64)
