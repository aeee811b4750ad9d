"""Looking after a cache: checks, mending, what is missing, what is used, what can go."""
