"""Pixels and samples to what an encoder takes, in views."""
