# make demo: the whole pipeline on real data.   make test: lint, types and tests.   make docs: the site.
# Each makes .venv if it is missing. Variables: PYTHON (3.11 or newer), TORCH (the requirement for pip).
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-slow lint docs clean

demo: $(VENV)/.demo
	$(BIN)/tlrec-edge demo --out demo-out

test: lint
	$(BIN)/python -m pytest -m "not slow" --durations=10

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site in docs/_build, strictly: a warning is an error.
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs docs/_build

clean:
	rm -rf $(VENV) build dist demo-out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch is installed first and alone: a package that requires it could otherwise pull another build.
# TORCH is its pin, so constraints.txt has none.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=...')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing $(TORCH) and the pins of constraints.txt into $(VENV): a few minutes the first time"
	$(PIP) $(TORCH) -c constraints.txt
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) -e ".[demo]" -c constraints.txt
	touch $@

# [dev] includes [demo].
$(VENV)/.dev: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) -e ".[dev]" -c constraints.txt
	touch $(VENV)/.demo $@

$(VENV)/.docs: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) -e ".[docs]" -c constraints.txt
	touch $@
