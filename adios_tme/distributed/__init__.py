"""Processes: the group of a run, what they exchange, how they are watched and stopped, pools."""
