#!/usr/bin/env bash
# Virtual environment, install with the test extra, ruff, mypy, pytest. Arguments go to pytest.
# VENV=DIR chooses the environment (default .venv), PYTHON=python3.12 the interpreter that makes it.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "${PYTHON:-python3}" -m venv --clear "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[test]'
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
"$venv/bin/python" -m pytest "$@"
