"""Whole slides: reading at a wanted scale, tissue, tiles, coordinate files."""
