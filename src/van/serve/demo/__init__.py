"""The demo page: drop an image, see what models make of it. Gradio is imported by `page` and `start` alone."""
