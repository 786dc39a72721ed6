"""Names that the service and the engine share about what a training leaves behind."""

LINEAGE = "lineage"
"""Folder of a model directory with what its training recorded. It may end before the version does, so it is no part of
the version's identity; its own digest stands in the training record."""

CANARY_PREFIX = "lethe-canary-"
"""Record and subject ids of canaries begin so: the service's own synthetic records, which stand in no data set."""
