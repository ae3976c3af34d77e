"""Pictures: preprocessing, resizing, palettes, label maps."""
