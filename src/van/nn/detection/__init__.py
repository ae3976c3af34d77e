"""Networks that find objects, and what their losses share."""
