"""Metadata of models in tests."""

from dataclasses import replace


def set_metadata(model, **fields):
    """Give a model classes, palette, preprocessing or provenance."""
    model.metadata = replace(model.metadata, **fields)
