"""``adios-tme benchmark embed``: feature speed beside a plain timm loop and the encoder alone."""
