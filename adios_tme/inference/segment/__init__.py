"""``adios-tme segment``: nuclei and regions of slides, images and patches."""
