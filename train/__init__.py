"""Stage 2: connector, soft prompt and the injected language model, trained on features."""
