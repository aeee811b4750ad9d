"""Commands around trainings: `epalm train`, `runs`, `recipes`, `import` and `export`."""
