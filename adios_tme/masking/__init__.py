"""From masks to the views that are compared, and masks that know nothing of the image."""
