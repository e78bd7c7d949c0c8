"""Speed and memory beside the floor and beside the libraries that one would use instead; run with ``python -m benchmarks``."""
