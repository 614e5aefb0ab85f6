"""Other people's files that pictures are made with: uPlot 1.6.32 (MIT), as npm has it."""
