"""What student and mask model minimise."""
