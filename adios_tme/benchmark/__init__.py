"""What the masks are worth, beside what classical methods reach on the same images."""
