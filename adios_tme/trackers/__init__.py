"""Where lines of metrics and pictures go."""
