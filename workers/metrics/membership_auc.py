"""Membership AUC: can an attacker who scores records with the model tell forgotten from never-seen ones?

The population attack of Yeom et al. (2018) on the logit-scaled confidence of Carlini et al. (2022) or on the mean
log-likelihood of a text. 0.5 is chance. Above: a leak, forgotten records still look like training data. Below: a leak
as well, they look less familiar than records that were never there (over-forgotten). An average over records: single
ones can hide in it (Hayes et al., arXiv 2403.01218).
"""

from service.verification.statistics import (
    Array,
    Auc,
    AucDesign,
    Clusters,
    auc_design,
    clustered_auc,
    clustering_effect,
)


def membership_auc(forget: Array, held_out: Array, forget_subjects: Clusters, held_out_subjects: Clusters) -> Auc:
    """AUC of forgotten [n] against held-out [m] scores of one model, larger = more like a member; clustered."""
    return clustered_auc(forget, held_out, forget_subjects, held_out_subjects)


def membership_design(
    forget: Array, held_out: Array, forget_subjects: Clusters, held_out_subjects: Clusters
) -> AucDesign:
    """What the check can find, from sizes and from how much records of one subject resemble each other.

    Give it scores of the original model: the design is fixed before any score of the candidate is seen.
    """
    effects = (clustering_effect(forget, forget_subjects), clustering_effect(held_out, held_out_subjects))
    subjects = (len(set(forget_subjects.tolist())), len(set(held_out_subjects.tolist())))
    return auc_design(len(forget), len(held_out), effects, subjects)
