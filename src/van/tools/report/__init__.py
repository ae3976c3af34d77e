"""A training run as one page."""
