"""The output folder of a run: its files, its checkpoints, its lock and its log."""
