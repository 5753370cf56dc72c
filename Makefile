# Every target sets up what it needs; the set-up is skipped while the stamp is newer than its inputs.
PYTHON ?= python3.11
VENV := .venv
STAMP := $(VENV)/.installed
# A test file stays on one process, because its tests share fixtures that take seconds.
UNIT := $(VENV)/bin/pytest tests/unit --numprocesses logical --maxprocesses 8 --dist loadfile

.PHONY: setup demo test test-fast soak lint lock clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
	  || { echo "make: '$(PYTHON)' is not Python 3.11; install it, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup
	$(VENV)/bin/sdnet-orchestrate demo

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

test: lint
	$(UNIT)
	$(VENV)/bin/pytest --ignore tests/unit

# For every small change: lint, types, unit and contract tests, without those that train or compile networks.
test-fast: lint
	$(UNIT) -m 'not soak and not networks'

# The faults that take too long for every commit; needs root and iproute2 for the network namespaces.
soak: setup
	$(VENV)/bin/pytest -m soak
	$(VENV)/bin/python benchmarks/soak.py

# Only a maintainer needs this: resolves pyproject.toml anew into requirements.lock.
lock: setup
	$(VENV)/bin/pip install --quiet uv
	$(VENV)/bin/uv pip compile --python-version 3.11 --extra dev --generate-hashes --no-header -o requirements.lock pyproject.toml requirements.build

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
