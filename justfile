# Every recipe sets up what it needs; `just` alone lists them.

python := env("EPALM_PYTHON", "python3")
bin := justfile_directory() / ".venv/bin"

[private]
default:
    @just --list

# A virtual environment with epalm in it, installed again when pyproject.toml has changed.
setup:
    #!/usr/bin/env bash
    set -euo pipefail
    [ -x .venv/bin/python ] || {{ python }} -m venv .venv
    if [ ! .venv/installed -nt pyproject.toml ]; then
        .venv/bin/python -m pip install --quiet --editable '.[dev]'
        touch .venv/installed
    fi

# The main job: extract, train and score on the built-in world, all three modalities.
demo *arguments: setup
    {{ bin }}/epalm demo {{ arguments }}

# Lint, types and tests: what has to pass before a commit.
test *arguments: setup lint types
    {{ bin }}/pytest -n 2 --dist loadfile -m "not slow" {{ arguments }}

# The tests that take longer; CI runs them after `just test`.
check-slow: setup
    {{ bin }}/pytest -n 2 --dist loadfile -m slow

# Style and formatting.
lint: setup
    {{ bin }}/ruff check .
    {{ bin }}/ruff format --check .

# Static types, strict.
types: setup
    {{ bin }}/mypy

# Speed, as ratios measured side by side in one run.
bench *arguments: setup
    {{ bin }}/python -m benchmarks {{ arguments }}

# Write docs/commands.md anew from --help, and draw the recipes' learning rates.
docs: setup
    {{ bin }}/python docs/generate_commands.py
    {{ bin }}/python docs/draw_rates.py

# Train the playground's models again (about an hour on two cores).
pretrain: setup
    {{ bin }}/python -m pretraining all
