# `make` builds .venv with pinned versions; every target needs nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo/hopper/medium-replay-v0

.PHONY: figure1 docs all demo test slow ray lint clients peers ogbench picture architecture

all: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,lint]'
	touch $@

demo: all ## The main job, offline, in minutes.
	$(BIN)/minari-stitch augment $(DEMO) --delta 2

test: all ## The whole default suite.
	$(BIN)/python -m pytest --numprocesses auto

slow: all ## Tests of minutes.
	$(BIN)/python -m pytest -m slow

ray: all ## On Ray: one node, two nodes, and what dies there.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[ray]'
	$(BIN)/python -m pytest -m ray

lint: all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

clients: all ## What other libraries make of a written dataset, each in an environment of its own.
	sh tests/clients.sh

peers: all ## d3rlpy's learners beside ours, in an environment of its own.
	sh benchmarks/peers.sh

ogbench: all ## Learners for goals on OGBench's medium point maze, made anew; more by OPTIONS.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench,ogbench]'
	$(BIN)/python benchmarks/ogbench/run.py $(OPTIONS)

figure1: all ## A maze in which only stitching leads to the goal, with the controls; ends with a line of JSON.
	$(BIN)/python benchmarks/run.py --suite figure1 --json

docs: all ## The documentation as a site in build/site; a warning is an error.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

picture: all ## The README's picture, from the demo's dataset.
	$(BIN)/python docs/picture.py

architecture: all ## The tables of docs/ARCHITECTURE.md, from the code.
	$(BIN)/python docs/architecture.py
