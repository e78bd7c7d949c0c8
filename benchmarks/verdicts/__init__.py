"""Whether the verdicts of ``graftwork fit`` are right, on generated suites whose answer is known."""
