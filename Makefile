# Two commands do everything, set-up included: make quickstart, make test. A second run installs nothing.
PYTHON ?= python3.11
PY := .venv/bin/python
STAMP := .venv/.installed
# Waiting threads sleep instead of spinning: 5x and more where cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE

# The libraries of GPU kernels are built without CUDA: here their Triton kernels run under its interpreter.
WITHOUT_CUDA := CAUSAL_CONV1D_SKIP_CUDA_BUILD=TRUE CAUSAL_CONV1D_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE MAMBA_FORCE_BUILD=TRUE
PIP = $(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: quickstart test prove gpu bench check docs format install clean

quickstart: install
	$(PY) -m train.cli run configs/experiments/quickstart.yaml

test: install
	$(PY) -m pytest -n 2
	TRITON_INTERPRET=1 $(PY) -m pytest -n 2 -m 'interpreted and not slow' tests/kernels tests/blocks/test_library_backends.py

prove: install
	$(PY) -m pytest -m 'slow and not interpreted and not gpu'
	TRITON_INTERPRET=1 $(PY) -m pytest -n 2 -m 'interpreted and slow' tests/kernels tests/blocks/test_library_backends.py

# On a machine with a CUDA device and the `gpu` extra.
gpu:
	$(PY) -m pytest -m gpu tests

bench: install
	$(PY) -m train.cli bench --threads 1 --clock cpu --save docs/bench

check: install
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	$(MAKE) test

# The site of docs/, in site/. Its tool is installed here and nowhere else.
docs: install
	$(PIP) --editable '.[docs]'
	$(PY) -m train.reference
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

format: install
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PIP) torch==2.13.0 setuptools wheel ninja packaging
	$(PIP) --no-deps fla-core triton
	$(WITHOUT_CUDA) $(PIP) --no-deps --no-build-isolation causal-conv1d mamba-ssm
	$(PIP) --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
