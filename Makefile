# Two commands matter: `make lab` opens the lab, `make test` runs every test. Both set up a virtual environment first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready
LESSON ?= notebooks/00_start_here.ipynb
PORT   ?= 8888

.PHONY: help lab test lint lessons constraints bench clean

help:
	@echo "make lab          open the first lesson in JupyterLab (LESSON=... for another, PORT=... for another port)"
	@echo "make test         run every test, notebooks included"
	@echo "make lint         check style and format"
	@echo "make lessons      build lessons and solutions from their masters"
	@echo "make bench        time a training step of ARMD against one of an AR transformer"
	@echo "make constraints  pin the newest set of packages that fits pyproject.toml"
	@echo "make clean        remove the virtual environment"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "armdlab needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 || true)." \
	       "Install one and name it: make PYTHON=python3.11 lab"; exit 1; }
	@echo "setting up $(VENV) (once, a few minutes and 2 GB; later runs take seconds)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch \
	  && $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]" || { \
	  echo "The installation did not finish: the lines above say why. If they speak of connections or of versions that" \
	       "cannot be found, check the network and run the same command again; it goes on where it stopped."; exit 1; }
	@touch $@

lab: $(READY)
	@if [ -n "$$DISPLAY$$WAYLAND_DISPLAY" ] || [ "$$(uname)" = Darwin ]; then browser=; else browser=--no-browser; \
	  echo "no display here: open the URL below in a browser"; fi; \
	if [ "$$(id -u)" = 0 ]; then root=--allow-root; fi; \
	exec $(BIN)/jupyter lab $$browser $$root --port $(PORT) --LabApp.default_url=/lab/tree/$(LESSON)

test: $(READY)
	@echo "testing the package (two processes of one thread each)"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder tests armdlab
	@echo "testing the lessons: every cell is run and its output compared"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope --nbval --nbval-current-env --nbval-sanitize-with tests/nbval.cfg \
	  --nbval-cell-timeout 300 --ignore notebooks/masters notebooks

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

lessons: $(READY)
	@$(BIN)/python notebooks/make_lessons.py

bench: $(READY)
	@$(BIN)/python tests/benchmarks/training.py

# Wheels of CUDA are pinned by torch itself; naming them here would make other platforms look for them.
constraints: $(READY)
	@$(BIN)/python -m pip install --quiet uv
	@echo "torch==2.13.0" | $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --no-header --no-annotate \
	  --all-extras --constraint - pyproject.toml | grep -vE '^(nvidia|cuda|triton|pywin)' > constraints.new
	@mv constraints.new constraints.txt
	@echo "constraints.txt now holds $$(grep -c == constraints.txt) pins"

clean:
	rm -rf $(VENV)
