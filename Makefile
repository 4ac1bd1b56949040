# Everything runs in one environment, .venv, made when missing and remade when what describes it changes.
SHELL := bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
unexport PYTHONPATH PYTHONHOME
# Threads that spin for one another wait a time slice each where other programs run.
export OMP_WAIT_POLICY ?= PASSIVE

BIN := .venv/bin
NOTEBOOKS := $(BIN)/python tools/notebooks.py
PIP := $(BIN)/python -m pip --disable-pip-version-check install --retries 10 --timeout 60 --progress-bar off -c constraints.txt
# The stamp's name carries a checksum of the environment's description, and it is written last:
# a fresh checkout's dates remake nothing, an edited requirement does, and a broken-off installation is not taken for a whole one.
DESCRIPTION := settings.ini setup.py constraints.txt
READY := .venv/ready-$(shell cat $(DESCRIPTION) | cksum | cut -d' ' -f1)
ARGS ?=
NB ?=
PYTHON ?=

help:  ## list the targets
	@echo "make TARGET   (the first use sets up .venv: about 2 minutes and 5 GB)"; \
	awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

setup: $(READY)  ## make the environment .venv, if it is missing or out of date

$(READY):
	@for python in $$(type -ap $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3 python)); do \
	  $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; python=; \
	done; \
	[ "$$python" ] || { echo "make: needs Python 3.11 or newer with its venv module (Debian: apt-get install python3-venv), or PYTHON=/path/to/python" >&2; exit 1; }; \
	echo "Setting up .venv with $$($$python --version): about 2 minutes, 5 GB."; \
	rm -rf .venv; $$python -m venv .venv
	@set -o pipefail; { $(PIP) --upgrade pip setuptools wheel && $(PIP) --no-build-isolation -e ".[dev]"; } 2>&1 \
	| tee .venv/install.log | while read -r word rest; do \
	  case $$word in Collecting) printf . ;; Installing) printf "\n  installing %s packages" $$(wc -w <<< "$$rest") ;; esac; \
	done || { echo; tail -n 9 .venv/install.log; echo "make: the installation failed; its log is .venv/install.log" >&2; exit 1; }
	@echo '{"ContentsManager": {"pre_save_hook": "nbdev.clean.clean_jupyter"}}' > .venv/etc/jupyter/jupyter_server_config.json; \
	[ ! -e .git ] || git config --local include.path ../.gitconfig 2>/dev/null || true; \
	touch $@; printf "\n.venv is ready.\n"

demo: $(READY)  ## train on the digits, draw all ten, judge them: runs/demo/  (ARGS=... for pixnerd-demo)
	@$(BIN)/pixnerd-demo $(ARGS)

lab: $(READY)  ## open JupyterLab on notebook 03
	@$(BIN)/jupyter trust nbs/*.ipynb >/dev/null; \
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/nbs/03_neural_field.ipynb --ServerApp.ip=127.0.0.1 $$([ "$$(id -u)" != 0 ] || echo --allow-root) $(ARGS)

# Voila allows every Host unless told; nothing (no) leaves Jupyter's own check, so that no foreign name reaches a kernel.
app: $(READY)  ## serve the dashboard of explorers as a page  (ARGS="--port=8866 --no-browser")
	@$(BIN)/voila nbs/dashboard.ipynb --Voila.ip=127.0.0.1 --Voila.tornado_settings=allow_remote_access= $(ARGS)

test: $(READY)  ## export drift, every notebook, then pytest: code, docs, README and a browser
	@status=0; \
	part() { echo "== $$1"; local t=$$SECONDS; "$${@:2}" || { status=1; echo "   FAILED: $$1"; }; echo "   $$((SECONDS-t)) s"; }; \
	part "export: pixnerd/ is what the notebooks say" $(NOTEBOOKS) export-check; \
	part "notebooks: every cell runs" $(NOTEBOOKS) test $(NB); \
	echo "== pytest, two files at a time"; OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS) || status=1; \
	exit $$status

test-large: $(READY)  ## what takes long: full-size files, how-to pages to the letter, the built site (12 GB of disk)
	@$(BIN)/python -m pytest -s tests/large $(ARGS)

export: $(READY)  ## write pixnerd/ from the notebooks
	@$(BIN)/nbdev_export

notebooks: $(READY)  ## run notebooks afresh and store their outputs, cleaned  (NB="03 07" picks)
	@$(NOTEBOOKS) execute $(NB) $(ARGS)

readme: $(READY)  ## write README.md from nbs/index.ipynb
	@$(BIN)/python tools/pages.py readme

docs: $(READY)  ## build the site in _docs/ (needs Quarto)
	@command -v quarto >/dev/null || { echo "make docs: needs Quarto, from https://quarto.org/docs/get-started/" >&2; exit 1; }; \
	$(BIN)/python tools/pages.py docs

clean:  ## remove what was built, but not .venv and runs/
	@rm -rf _docs _proc build dist *.egg-info .pytest_cache .hypothesis nbs/.ipynb_checkpoints; \
	find nbs pixnerd tests tools -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help setup demo lab app test test-large export notebooks readme docs clean
