"""Configurations of models and the catalogue of published weights: plain data, standard library only."""
