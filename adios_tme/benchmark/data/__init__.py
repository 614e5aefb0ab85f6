"""``adios-tme benchmark data``: the loader beside its decoder."""
