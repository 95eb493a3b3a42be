"""How fast the queue is, beside others, on one server in one run: `python -m tests.benchmarks`."""
