"""What detection, instance and panoptic segmentation share: no task, and it knows none."""
