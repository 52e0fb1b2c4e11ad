"""Measures of a trained model: what they read, where their rows are kept, results.csv."""
