"""Predictions to figures with intervals."""
