"""The frozen language model: injection, adapters, loss."""
