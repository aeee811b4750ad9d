"""How the playground's models were made: `python -m pretraining lm|image|video|audio`. Not part of the package."""
