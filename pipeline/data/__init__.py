"""Images: where they come from, how they are stored, and the batches that training sees."""
