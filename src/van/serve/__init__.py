"""HTTP service, demo page and batch jobs, all on the Predictor."""
