"""Pictures of masks and curves of runs."""
