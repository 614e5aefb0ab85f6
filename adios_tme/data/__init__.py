"""From archives of patches to uint8 batches: index, order, reading, damage, augmentation."""
