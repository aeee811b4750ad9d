"""Scored runs to one HTML page."""
