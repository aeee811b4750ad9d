"""Recipes in TOML: one per task and variant, with the hyper-parameters of the paper."""
