"""Learning events: summed up together they are what they are one by one."""

import numpy as np
import torch

from workers.lineage.events import EVENTS, EventMeans, learning_events
from workers.modeling.tasks import Predictions


def test_events_of_a_known_prediction() -> None:
    p = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
    found = learning_events(p.log(), torch.tensor([0, 2]))
    entropy = (p * p.log()).sum(dim=1)
    expected = torch.stack([torch.tensor([0.7, 0.3]), torch.tensor([0.7, 0.6]), entropy, torch.tensor([1.0, 0.0])])
    assert torch.allclose(found, expected, atol=1e-6)


def test_means_over_passes_and_over_the_predictions_of_a_pass() -> None:
    """Against a plain loop: several predictions a pass, a record without any, more than is held at once."""
    draw = torch.Generator().manual_seed(0)
    records, classes = 9, 3000
    means = EventMeans(records)
    seen: list[list[np.ndarray]] = [[] for _ in range(records)]
    for rows in ([0, 3, 5], [5, 1], [7, 0, 2, 5], [4]):
        counts = [1 + (row % 3) * 4 for row in rows]
        places = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(counts))
        logits = torch.randn(len(places), classes, generator=draw)
        targets = torch.randint(0, classes, (len(places),), generator=draw)
        means.add(rows, Predictions(logits, targets, places))
        events = learning_events(logits, targets).numpy()
        for at, row in enumerate(rows):
            seen[row].append(events[:, places.numpy() == at].mean(axis=1))
    found = means.means()
    assert found.shape == (records, len(EVENTS))
    for row, passes in enumerate(seen):
        assert means.times[row] == len(passes)
        assert np.allclose(found[row], np.mean(passes, axis=0) if passes else 0.0, atol=1e-6), row


def test_one_prediction_a_record_needs_no_places() -> None:
    logits, targets = torch.randn(4, 10, generator=torch.Generator().manual_seed(1)), torch.arange(4)
    means = EventMeans(4)
    means.add([2, 0, 3, 1], Predictions(logits, targets))
    events = learning_events(logits, targets).numpy().T
    assert np.allclose(means.means()[[2, 0, 3, 1]], events, atol=1e-6)
