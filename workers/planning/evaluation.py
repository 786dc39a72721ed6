"""Temporary."""

from service.verification.schema import *
from service.verification.verdict import decide, judge
import numpy as np


def evaluate(
    *,
    original_dir,
    candidate_dir,
    retrained_dirs,
    data,
    held_out,
    holdout_digest,
    forget_ids,
    task,
    policy,
    alpha,
    ignore_record,
    context,
):
    from workers.modeling.loading import load_model
    from workers.modeling.records import held_out_key, split_held_out
    from workers.scoring.score import score

    forget = data.subset(data.rows_of(forget_ids).tolist())
    _, cert = split_held_out(held_out, held_out_key(holdout_digest))
    tables = {}
    import pyarrow as pa

    for name, d in (("original", original_dir), ("candidate", candidate_dir)):
        m = load_model(d, task, context.device)
        parts = []
        for part, rec in (("forget", forget), ("held_out", cert)):
            t = score(m, rec, context).table
            parts.append(t.append_column("set", pa.array([part] * len(rec))))
        tables[name] = pa.concat_tables(parts)
    checks = judge(
        [
            Check(id="sanity", role="gate", statistic="x", verdict="pass"),
            Check(id="distinct", role="gate", statistic="x", verdict="pass"),
            Check(id="provenance", role="gate", statistic="x", verdict="pass"),
        ],
        "procedure",
        policy.verification,
    )
    v, g = decide(checks, "procedure")
    n = ModelNumbers(forget=None, retain=None, held_out=None)
    return Evaluation(
        task=task,
        records=Records(forget=len(forget), retain=0, held_out=len(cert), retain_scored=0),
        models=Models(original=n, candidate=n),
        checks=checks,
        metrics={},
        verdict=v,
        basis="procedure",
        grade=g,
        policy_digest=policy.digest(),
    ), tables
