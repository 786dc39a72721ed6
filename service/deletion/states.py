"""The statuses of a request and every step between them, in one table."""

FINAL = frozenset({"completed", "rejected", "cancelled"})
OPEN = ("verifying", "pending", "accepted", "running", "failed")
STATUSES = (*OPEN, "completed", "rejected", "cancelled")

STEPS: dict[str, tuple[str, ...]] = {
    # action: from which statuses it may be taken
    "approve": ("pending",),
    "reject": ("verifying", "pending"),
    "run": ("accepted", "running", "failed"),
    "cancel": OPEN,
    "extend": OPEN,
    "retry": ("failed",),
    "fail": ("accepted", "running"),
    "complete": ("accepted", "running", "failed"),
}
"""`run` includes `failed`: a request with two models goes on with the one whose job did not fail. It stays `failed`
then, until a person retries it or the rest of its targets are done."""
