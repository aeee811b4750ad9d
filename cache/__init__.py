"""Content-hashed storage of features: knows arrays, records and digests; knows nothing about models."""
