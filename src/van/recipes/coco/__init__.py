"""What recipes of detection, instance and panoptic segmentation share: sections, schedules, presets."""
