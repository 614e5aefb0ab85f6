"""``adios-tme embed``: features of patches, slide by slide."""
