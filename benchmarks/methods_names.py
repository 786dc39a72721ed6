"""Rows of the table of methods that are no attempts to unlearn, and those that serve as a measure."""

DO_NOTHING, RETRAIN, BETWEEN, ORACLE = "do nothing", "retrain", "retrain to retrain", "oracle_matching"
