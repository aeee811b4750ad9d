"""Stage 3: decoding, predictions, metrics."""
