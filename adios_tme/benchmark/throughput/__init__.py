"""``adios-tme benchmark throughput``: the training step timed, and its cost on paper."""
