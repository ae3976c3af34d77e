"""Tasks: what a network is for. One folder each."""
