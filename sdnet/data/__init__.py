"""From image pairs to batches: find pairs, cut patches, store them, order them, hand them on."""
