"""``adios-tme benchmark segment``: the speed of nuclei from slides, beside the mask model alone."""
