"""What runs where others ask for it: the HTTP service, the demo page, batch jobs. All on the Predictor."""
