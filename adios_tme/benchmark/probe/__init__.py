"""``adios-tme benchmark probe``: what frozen features tell apart, beside what needs no training."""
