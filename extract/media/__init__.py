"""Media files to pixels and samples, within limits."""
