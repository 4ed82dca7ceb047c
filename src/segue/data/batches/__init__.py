"""From samples to batches: augmentation, loading, memory."""
