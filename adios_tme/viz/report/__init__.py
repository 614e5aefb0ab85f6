"""One HTML file that tells of a run, or compares several."""
