"""`epalm bench`: grids of trainings from one cache."""
