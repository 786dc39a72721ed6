"""Zero retrain forgetting (Chundawat et al., Bad Teacher, arXiv 2205.08096): closeness to an untrained model.

ZRF = 1 - mean over forgotten records of the Jensen-Shannon divergence between the candidate's probabilities and those
of an incompetent model (the same architecture with random weights). 1: it answers like one that learned nothing, which
is not the aim: a model that never saw the records still answers them by what the others taught it. So the value that
counts is a retrain's, or that on never-seen records. Above it: over-forgotten. Below it: a leak.

The definition is the paper's, in bits, so that 0 is disjoint answers. The authors' code averages over classes as well
as records and exchanges the arguments of the divergence; its figures lie near 1 and are not comparable.
"""

from service.verification.divergence import jensen_shannon
from service.verification.statistics import Array, Clusters, Mean, clustered_mean


def zrf(candidate: Array, untrained: Array, subjects: Clusters) -> Mean:
    """ZRF from probabilities [n, C] of the same records by both models; ValueError where rows are no distributions.

    The interval is over records, clustered by subject, and takes the one untrained model as given.
    """
    return clustered_mean(1.0 - jensen_shannon(candidate, untrained), subjects)
