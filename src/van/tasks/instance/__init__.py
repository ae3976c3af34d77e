"""Instance segmentation."""
