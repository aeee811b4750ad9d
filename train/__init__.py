"""Stage 2: connector, soft prompt and the augmented OPT, trained on features."""
