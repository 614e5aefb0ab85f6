"""The student, the mask models, and the parts they are built of."""
