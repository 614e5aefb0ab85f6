"""``adios-tme benchmark nuclei``: masks against labelled nuclei, beside what needs no training."""
