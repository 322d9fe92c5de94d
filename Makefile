# Two commands for a user: `make run` and `make test`. Everything is installed into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STATE ?= .riwoa
RESULTS ?= .bench
EVIDENCE ?= .gpu
ARGS ?=
JOBS ?= 2
SUITE = $(BIN)/riwoactl bench suite --results $(RESULTS) --jobs $(JOBS) --figures $(RESULTS)/figures \
	--page daemon/riwoa/data/handbook/results.md
SHARED := -n $(JOBS) --dist worksteal
FUZZED := tests/service/test_control.py tests/cognition/test_parse.py tests/config/test_config.py tests/config/test_hours.py \
	tests/config/test_reload.py

.PHONY: run test test-slow test-crash test-systemd test-cluster test-container test-gpu bench bench-quick gpu-evidence \
	pictures check lint clean

# The language model that suits this machine, once: the embedded one (94 MB), or with a CUDA GPU a larger one (8 GB). It
# goes where `riwoactl model list` says; without any the search is geometric.
run: $(VENV)/.installed-run
	@$(BIN)/riwoactl model pull auto >/dev/null || echo "no language model for now; searching without it"
	@$(BIN)/riwoad --foreground --state $(STATE) $(ARGS)

# JOBS processes share the tests; ARGS chooses among them.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(SHARED) $(ARGS)

# The whole protocol of `riwoactl validate` on CIFAR-100 itself: RIWOA_DATA names the folder of cifar-100/.
test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow $(ARGS)

# Long; TEST_KILLS, TEST_CUTS and TEST_FUZZ say how often it kills and cuts, and how many frames, texts and settings it
# tries (100, 40, 10000).
test-crash: $(VENV)/.installed-dev
	TEST_FUZZ=$${TEST_FUZZ:-10000} $(BIN)/python -m pytest $(SHARED) -m "crash or not crash" tests/crash $(FUZZED) $(ARGS)

# Boots a container: needs root, and Debian's systemd-container and debootstrap; skips with the reason otherwise.
test-systemd: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m systemd tests/systemd $(ARGS)

# Starts Ray clusters on this machine, kills their nodes and heads, and says how fast they are (-s).
test-cluster: $(VENV)/.installed-ray
	$(BIN)/python -m pytest -m "cluster or not cluster" tests/cluster $(ARGS)

# Builds the image and runs it: needs root, and Debian's podman, buildah, mmdebstrap and runc; skips with the reason
# otherwise. Five minutes the first time, so no part of CI; base and wheels are kept in RIWOA_TEST_ROOT.
test-container: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m container tests/container $(ARGS)

# Needs a CUDA GPU.
test-gpu: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m gpu -s tests/gpu $(ARGS)

# Every declared experiment, finished searches kept in RESULTS; then the generated part of the results page, and pictures.
# bench-quick takes five minutes. Needs the data of RIWOA_DATA, else of ../shared/data.
bench: $(VENV)/.installed-bench
	$(SUITE) $(ARGS)

bench-quick: $(VENV)/.installed-bench
	$(SUITE) --quick $(ARGS)

# What only a GPU can show, the next eight minutes of it; again until all is done. ARGS=--status tells how far it is.
# EVIDENCE is committed, and the page. Needs CIFAR-100 where RIWOA_DATA says, else in ../shared/data.
gpu-evidence: $(VENV)/.installed-run
	@$(BIN)/riwoactl bench gpu --results $(EVIDENCE) --page daemon/riwoa/data/handbook/results.md $(ARGS)

# The README's pictures, of the finished run in STATE; needs Debian's chromium.
pictures: $(VENV)/.installed-dev
	$(BIN)/python tools/pictures.py $(STATE) docs

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

$(VENV)/.installed-run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-bench: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@ $(VENV)/.installed-run

# pip compiles what it installs, and shall: where PYTHONDONTWRITEBYTECODE is set, each process of a test would do it again.
$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.installed-run $(VENV)/.installed-bench

$(VENV)/.installed-ray: pyproject.toml | $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[ray]'
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "riwoa needs Python 3.11 or newer; make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "no venv module; on Debian: apt install python3-venv"; exit 1; }

clean:
	rm -rf $(VENV)
