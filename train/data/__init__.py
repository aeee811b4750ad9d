"""Samples to batches: texts, features, draws."""
