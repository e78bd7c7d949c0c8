"""Several deltas of one model in one forward pass: every row of a batch is computed with a delta of its own."""
