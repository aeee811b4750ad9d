"""What is trained between encoder and language model."""
