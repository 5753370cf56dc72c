# Targets install what they need, unless the stamp is newer than the lock and pyproject.toml.
PYTHON ?= python3.11
VENV := .venv
STAMP := $(VENV)/.installed
CPUS := $(shell nproc 2>/dev/null || echo 1)
# On two slow CPUs, two lanes made tests take longer than 5 minutes, which was their time-out then.
LANES ?= $(shell [ $(CPUS) -ge 4 ] && echo 2 || echo 1)
# loadfile: the tests of one file share fixtures that take seconds.
UNIT := $(VENV)/bin/pytest tests/unit --numprocesses logical --maxprocesses 8 --dist loadfile

.PHONY: setup demo test test-one-host test-hosts test-fast soak lint lock clean

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
	$(MAKE) --keep-going --jobs $(LANES) --output-sync test-one-host test-hosts

# A launch often waits, so these two can run side by side; a drill is with the hosts, so that both take equally long.
# Tests of hosts and of mounts use the same network addresses, so they are never side by side.
test-one-host: setup
	$(VENV)/bin/pytest tests/integration --ignore tests/integration/test_drill.py

test-hosts: setup
	$(VENV)/bin/pytest tests/hosts tests/mounts tests/integration/test_drill.py

# For every small change: lint, types, and the unit tests that neither train nor compile networks.
test-fast: lint
	$(UNIT) -m 'not soak and not networks'

# The faults that take too long for every commit. Needs root and iproute2, for network namespaces.
soak: setup
	$(VENV)/bin/pytest -m soak
	$(VENV)/bin/python benchmarks/soak.py

# For maintainers: resolves pyproject.toml into requirements.lock again.
lock: setup
	$(VENV)/bin/pip install --quiet uv
	$(VENV)/bin/uv pip compile --python-version 3.11 --extra dev --generate-hashes --no-header -o requirements.lock pyproject.toml requirements.build

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
