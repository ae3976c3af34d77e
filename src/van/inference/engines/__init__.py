"""What runs a network: arrays in, a dict of arrays out; one small class per runtime."""
