"""From files to columns to a suite: readers, checks, inference of tasks and types, suite files."""
