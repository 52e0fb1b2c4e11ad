# Two commands do everything, set-up included: make quickstart, make test. A second run installs nothing.
PYTHON ?= python3.11
PY := .venv/bin/python
STAMP := .venv/.installed
# Waiting threads sleep instead of spinning: 5x and more where cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: quickstart test prove check format install clean

quickstart: install
	$(PY) -m train.cli run configs/experiments/quickstart.yaml

test: install
	$(PY) -m pytest -n 2

prove: install
	$(PY) -m pytest -m slow

check: install
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	$(PY) -m pytest -n 2

format: install
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps fla-core
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
