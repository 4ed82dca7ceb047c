# make demo: train a network on drawn street scenes and picture what it learned.   make test: run the whole suite; make quick: most.
# Both set themselves up in .venv the first time; nothing else has to be installed but Python 3.11+, make and git.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready

# A process of tests a core, in an order drawn anew each time: its seed is printed. PYTEST="..." adds options.
TESTS = $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 $(PYTEST)

.PHONY: demo test quick check coverage docs bench bench-compare lock clean

demo: $(READY)
	$(BIN)/segue demo

# Other runtimes bring threads of their own, beside which a process that has done much else may end at once: they have their own.
test: $(READY)
	$(TESTS) -m "not runtimes"
	$(TESTS) -m runtimes

# What a change is most likely to break, in a minute or two.
quick: $(READY)
	$(TESTS) -m "not slow and not runtimes"

# Which lines and branches of segue the tests pass through; fails below the floor in pyproject.toml.
coverage: $(READY)
	$(TESTS) -m "not runtimes" --cov --cov-report= --cov-fail-under=0
	$(TESTS) -m runtimes --cov --cov-append

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What the code says of itself: a page and drawings for each network, and the table of what they learned.
docs: $(READY)
	PYTHONPATH=tools $(BIN)/python -m network_pages.results docs/results
	PYTHONPATH=tools $(BIN)/python -m network_pages.pages docs/networks

ON_GPU = $(addprefix benchmarks/,engines.py training.py upsampling.py)
BENCHMARKS = $(if $(filter cuda,$(DEVICE)),$(ON_GPU),\
	$(filter-out benchmarks/harness.py benchmarks/report.py benchmarks/compare_records.py,$(wildcard benchmarks/*.py)))

# Every comparison with other packages, measured on this machine, in an hour and a half or more; on its GPU: make bench DEVICE=cuda
bench: $(READY)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --editable ".[bench]"
	failed=; for script in $(BENCHMARKS); do \
		$(BIN)/python $$script $(if $(DEVICE),--device $(DEVICE)) || failed="$$failed $$script"; \
	done; \
	$(BIN)/python benchmarks/report.py || exit 1; \
	if [ "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

# Has segue become slower by the records in docs/performance than by those of the last commit?
bench-compare: $(READY)
	$(BIN)/python benchmarks/compare_records.py

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "segue needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $(READY)

# Newest versions of everything, for every platform, with the hashes of their files; names no registry.
lock: $(READY)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra dev --no-emit-index-url --no-header --upgrade \
		--generate-hashes pyproject.toml --output-file requirements.lock

clean:
	rm -rf $(VENV) dist .nox .coverage .pytest_cache .mypy_cache .ruff_cache
