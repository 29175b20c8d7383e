"""From the image store to batches: what is drawn for each image, and how a batch is cut."""
