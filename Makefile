# make demo | make test | make lint | make bench | make docs | make dist
# Each installs what it needs into .venv; a second call installs nothing.

PYTHON ?= python3
BIN := .venv/bin
SETTINGS := pyproject.toml constraints.txt
TRAINED := packages/clrelkt-muse-xquad

.PHONY: demo test test-tensorflow lint bench docs dist docker-lint docker-proof clean

demo: .venv/.core
	$(BIN)/clrelkt demo -o runs/demo-$$(date +%Y%m%d-%H%M%S)

test: .venv/.dev lint
	$(BIN)/python -m pytest -q --durations=10

test-tensorflow: .venv-tensorflow/.installed
	.venv-tensorflow/bin/python -m pytest -q -m tensorflow tests/encoders

lint: .venv/.dev
	$(BIN)/ruff check src tests bench docs scripts
	$(BIN)/ruff format --check src tests bench docs scripts
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: .venv/.dev
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo build/docs/index.html

# A wheel and an sdist, checked by installing the wheel into an empty environment.
dist: .venv/.dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist $(TRAINED)
	$(BIN)/python -m twine check --strict dist/*
	scripts/check_wheel.sh dist/clrelkt-[0-9]*.whl

docker-lint: .venv/.dev
	$(BIN)/hadolint Dockerfile

# The Dockerfile's steps in a clean Debian root; needs root and debootstrap.
docker-proof:
	scripts/prove_dockerfile.py Dockerfile

bench: .venv/.dev
	$(BIN)/python bench/run.py

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.core: .venv/bin/python $(SETTINGS) $(TRAINED)/pyproject.toml
	$(BIN)/pip install --quiet -c constraints.txt -e .
	$(BIN)/pip install --quiet --no-deps $(TRAINED)
	touch $@

.venv/.dev: .venv/bin/python $(SETTINGS) $(TRAINED)/pyproject.toml
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps $(TRAINED)
	touch $@ .venv/.core

.venv-tensorflow/.installed: $(SETTINGS)
	$(PYTHON) -m venv .venv-tensorflow
	.venv-tensorflow/bin/pip install --quiet -c constraints.txt -e '.[tensorflow]' \
		tensorflow-text hypothesis pytest pytest-timeout
	touch $@

clean:
	rm -rf .venv .venv-tensorflow build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
