"""Settings: one declaration per option, read by the command line, YAML files and the docs."""
