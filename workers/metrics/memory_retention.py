"""Memory retention rate: how much of the performance on records that stay is still there after unlearning.

accuracy(candidate) / accuracy(original) on retained (or held-out) records; for language models accuracy is that of the
next token. 1: nothing lost. The name is of arXiv 2401.04385, whose exact formula may differ.
"""

from service.verification.statistics import Array, Clusters, Mean, NotMeasurable, clustered_ratio


def memory_retention_rate(before: Array, after: Array, subjects: Clusters) -> Mean | NotMeasurable:
    """The ratio of mean per-record accuracies [k] after and before, clustered by subject."""
    if not before.any():
        return NotMeasurable("not measurable: the original is right on none of these records")
    return clustered_ratio(after, before, subjects)
