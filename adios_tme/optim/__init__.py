"""How the weights move: optimisers, schedules, parameter groups."""
