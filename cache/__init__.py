"""Storage named by content: feature sets of blocks, commit records and a ledger. Knows nothing about models."""
