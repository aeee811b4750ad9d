# Every recipe sets up what it needs; `just` alone lists them.

python := env("EPALM_PYTHON", "python3")
bin := justfile_directory() / ".venv/bin"

[private]
default:
    @just --list

# A virtual environment with epalm in it, installed again when pyproject.toml has changed.
setup: (install "core" ".")

# The same, and the tools and extras that tests need.
setup-dev: (install "dev" ".[dev]")

[private]
install mark what:
    #!/usr/bin/env bash
    set -euo pipefail
    [ -x .venv/bin/python ] || {{ python }} -m venv .venv
    if [ ! .venv/{{ mark }} -nt pyproject.toml ] && [ ! .venv/dev -nt pyproject.toml ]; then
        echo "installing epalm ({{ mark }}) into .venv …"
        .venv/bin/python -m pip install --quiet --editable '{{ what }}'
        touch .venv/{{ mark }}
    fi

# The main job: extract, train and score on the built-in world, all three modalities.
demo *arguments: setup
    {{ bin }}/epalm demo {{ arguments }}

# Lint, types and tests: what has to pass before a commit.
test *arguments: setup-dev lint types
    {{ bin }}/pytest -n 2 --dist loadfile -m "not slow" {{ arguments }}

# The tests that take longer; CI runs them after `just test`.
check-slow: setup-dev
    {{ bin }}/pytest -n 2 --dist loadfile -m slow

# Style and formatting.
lint: setup-dev
    {{ bin }}/ruff check .
    {{ bin }}/ruff format --check .

# Static types, strict.
types: setup-dev
    {{ bin }}/mypy

# Speed, as ratios measured side by side in one run.
bench *arguments: setup-dev
    {{ bin }}/python -m benchmarks {{ arguments }}

# Write docs/commands.md anew from --help, and draw the recipes' learning rates.
docs: setup-dev
    {{ bin }}/python docs/generate_commands.py
    {{ bin }}/python docs/draw_rates.py

# Train the playground's models again (about an hour on two cores).
pretrain: setup-dev
    {{ bin }}/python -m pretraining all
