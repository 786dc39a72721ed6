"""How hard were the forgotten records to learn? A population attack is only fair to records like the held-out ones.

Mislabelled or unusual records are met with low confidence by every model that never saw them, so a true retrain scores
them below held-out records, as if they were over-forgotten. The original's training shows beforehand which these are:
its mean confidence in a record over the passes is a proxy of memorization (Zhao et al. 2024, arXiv 2410.16516). 0.5:
forgotten records were as hard as retained ones. Below: harder. Above: easier. Away from 0.5 the population AUC says
nothing; records matched by reference models take its place.
"""

from dataclasses import dataclass

from service.verification.statistics import Array, Auc, Clusters, NotMeasurable, clustered_auc


@dataclass(frozen=True)
class Difficulty:
    """Mean confidence of the original's training in forgotten [n] and in retained records [m], and their subjects."""

    forget: Array
    forget_subjects: Clusters
    retain: Array
    retain_subjects: Clusters


def difficulty_auc(known: Difficulty) -> Auc | NotMeasurable:
    """AUC of the forgotten against the retained records, clustered by subject."""
    if not len(known.forget) or not len(known.retain):
        return NotMeasurable("not measurable: the training left no learning events of these records")
    return clustered_auc(known.forget, known.retain, known.forget_subjects, known.retain_subjects)
