#!/usr/bin/env bash
# Installs the package with its test extra; runs ruff, mypy, and pytest in two processes of one thread each.
# --all as the first argument adds the tests marked `slow`; further arguments go to pytest.
# VENV=DIR: virtual environment (default .venv). PYTHON=python3.12: interpreter that creates it.
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
marked="not slow"
if [ "${1:-}" = --all ]; then marked=""; shift; fi
venv=${VENV:-.venv}
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "${PYTHON:-python3}" -m venv --clear "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[test]'
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
"$venv/bin/python" -m pytest --numprocesses 2 --dist worksteal -m "$marked" "$@"
