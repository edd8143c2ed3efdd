# demo: the newcomer's first command.  test: every test.  check: lint, types, layout.
# soak: long rows of faults.
# dist: wheel and sdist in dist/.  licences: docs/licences.md again, from the installed packages.
# test-lowest: a broad part of the tests with the lowest versions that pyproject.toml allows.
# test-python PYTHON=...: the same part with another Python.
# docs: the tables of docs/config.md and docs/commands.md again, from the classes and the commands; then the site,
# in site/, where a broken link or a public name without a docstring is an error.
# bench: the numbers, as ratios.  results, accuracy, truth, benchmark, claim: docs/results.md,
# docs/accuracy.md, docs/truth.md, docs/benchmark.md, docs/claim.md again (they take hours, and go
# on where they were stopped).
PYTHON ?= python3
PIP_INSTALL = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# The S3 server of the tests, in a folder of its own: it wants versions that nothing else here has.
.s3-server/installed: .venv/installed-dev tests/s3_server.txt
	rm -rf .s3-server
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --target .s3-server -r tests/s3_server.txt
	touch $@

.PHONY: demo test test-lowest test-python check docs licences dist bench results accuracy truth soak benchmark claim clean

.venv/installed: pyproject.toml constraints.txt src/isthmus/version.py
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	$(PIP_INSTALL) torch==2.13.0
	$(PIP_INSTALL) -e '.[tensorboard,trees,tune]'
	touch $@

.venv/installed-dev: .venv/installed
	$(PIP_INSTALL) -e '.[dev]'
	touch $@

.venv/installed-docs: .venv/installed
	$(PIP_INSTALL) -e '.[docs]'
	touch $@

.venv/installed-peers: .venv/installed-dev
	$(PIP_INSTALL) -e '.[peers]'
	touch $@

# Without dependencies: those of torchrec bring the CUDA build of fbgemm into the folder of the CPU build.
.venv/installed-torchrec: .venv/installed-dev
	$(PIP_INSTALL) --no-deps torchrec==1.8.0 fbgemm-gpu-cpu==1.8.0 tensordict torchmetrics lightning-utilities \
		pyre-extensions typing-inspect mypy-extensions pyvers orjson iopath portalocker
	touch $@

demo: .venv/installed
	.venv/bin/isthmus demo

# Processes with one thread each, one more than cores: many tests wait for a process of their own.
# The tests of a file stay together, the longest files first (tests/conftest.py). Compiled files are kept: without them each process compiles the package anew.
test: .venv/installed-dev .s3-server/installed
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 .venv/bin/python -m pytest \
		--dist loadfile --no-loadscope-reorder -n $$(.venv/bin/python -c 'import os; print((os.cpu_count() or 1) + 1)')

# What these tests read, train, serve and export meets every dependency of isthmus and its extras.
BROAD = $(addprefix tests/test_,$(addsuffix .py,cli config contracts csv_file dataset encode evaluation \
	exported_models mlflow models number_embeddings optimisers read report resume run score_log serving split \
	tracking train trees_model tune vocabulary))
TESTING = beartype httpx hypothesis pytest pytest-xdist scikit-learn

# torch comes first and by itself: an index may have several builds of it, and pip's own variables say which.
.venv-lowest/installed: pyproject.toml tests/lowest.txt
	rm -rf .venv-lowest && $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c tests/lowest.txt torch
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c tests/lowest.txt \
		-e '.[mlflow,numbers,onnx,plots,serve,tensorboard,trees,tune,wandb]' $(TESTING)
	touch $@

test-lowest: .venv-lowest/installed
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -n 2 --dist loadfile $(BROAD)

test-python:
	test -x .venv-python/bin/python || $(PYTHON) -m venv .venv-python
	.venv-python/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	.venv-python/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
		-e '.[mlflow,numbers,onnx,plots,serve,tensorboard,trees,tune,wandb]' $(TESTING)
	OMP_NUM_THREADS=1 .venv-python/bin/python -m pytest -n 2 --dist loadfile $(BROAD)

check: .venv/installed-dev
	.venv/bin/ruff check src tests bench docs/*.py
	.venv/bin/ruff format --check src tests bench docs/*.py
	.venv/bin/pyright --pythonpath .venv/bin/python
	.venv/bin/python -m pytest tests/test_layout.py

docs: .venv/installed-docs
	.venv/bin/python docs/config_page.py
	.venv/bin/python docs/command_page.py
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build

licences: .venv/installed-dev
	.venv/bin/python docs/licences_page.py

# The same bytes from the same files: hatchling writes a fixed time. .venv brings hatchling, so no network is asked.
dist: .venv/installed-dev
	rm -rf dist
	.venv/bin/python -m hatchling build
	.venv/bin/python -m pytest tests/test_dist.py

bench: .venv/installed-peers
	.venv/bin/python -m bench --write

results: .venv/installed-dev
	.venv/bin/python -m bench.results

accuracy: .venv/installed-dev
	taskset -c 0 .venv/bin/python -m bench.accuracy

truth: .venv/installed-dev
	.venv/bin/python -m pytest -m truth
	.venv/bin/python -m bench.truth

soak: .venv/installed-dev .s3-server/installed
	.venv/bin/python -m pytest -m soak

benchmark: .venv/installed-dev
	.venv/bin/python -m bench.benchmark_page

claim: .venv/installed-dev
	.venv/bin/python -m bench.claim

clean:
	rm -rf .venv .venv-lowest .venv-python dist
