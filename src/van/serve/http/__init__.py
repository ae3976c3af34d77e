"""`van serve`: an HTTP service with dynamic batches, bounded in bytes, pixels, images, memory and time."""
