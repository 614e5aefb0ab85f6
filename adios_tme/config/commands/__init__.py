"""Settings of the commands other than train and index, a file for each or for its group."""
