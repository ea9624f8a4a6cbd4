# make quickstart   mail, training, test report, registry, server and three verdicts (KEEP=1: goes on serving)
# make test         the tests            make test-slow   the slow ones
# make lint         style and types      make lock       constraints.txt anew, from .venv
# make image        mailray:VERSION (CUDA=1: mailray-cuda), by docker, podman or buildah
# make test-cluster the image, as containers that are a cluster; needs podman
SHELL := bash
PYTHON ?= python3
KEEP ?=
PORT ?= 8000
BIN := .venv/bin
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
# Of the image: what builds it, the first that answers; whether with PyTorch's CUDA build; where its
# source is found; what its build needs here, as --build-arg TORCH_INDEX=<index of CPU builds>.
ENGINE ?= docker podman buildah
CUDA ?=
SOURCE ?=
IMAGE_OPTIONS ?=
# What is imported is compiled once and kept, also where the environment says not to: each command
# starts several processes, and each would compile Torch, Ray and transformers anew.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: quickstart test test-slow test-cluster image lint lock clean
.DEFAULT_GOAL := quickstart

quickstart: .venv/installed
	@$(BIN)/mailray quickstart --port $(PORT) $(if $(KEEP),--keep)

test: .venv/installed
	@$(BIN)/pytest -q -n 2 --dist loadfile

test-slow: .venv/installed
	@$(BIN)/pytest -q -n 2 --dist loadfile -m "slow and not gpu and not containers"

# -s: the table is the point.
test-cluster: .venv/installed
	@$(BIN)/pytest -q -s -m containers tests/containers

# An engine that answers: docker's client may be there without its daemon.
image:
	@for engine in $(ENGINE) ''; do \
	  [ -z "$$engine" ] || ! $$engine info >/dev/null 2>&1 || break; \
	done; \
	[ -n "$$engine" ] || { echo "make image needs one of: $(ENGINE)" >&2; exit 1; }; \
	$$engine build -f cluster/Dockerfile -t mailray$(if $(CUDA),-cuda):$(VERSION) \
	  $(if $(CUDA),--build-arg TORCH_BUILD=) --build-arg SOURCE=$(SOURCE) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) $(IMAGE_OPTIONS) .

lint: .venv/installed
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

# One line that counts the seconds on a terminal, one line at the end elsewhere; the log on failure.
# Compiling what is imported, when it is imported, spares the minute of compiling everything.
.venv/installed: pyproject.toml constraints.txt
	@start=$$SECONDS; log=.venv/install.log; mkdir -p .venv; \
	{ $(PYTHON) -c 'import sys; sys.exit("mailray needs Python 3.11 to 3.13, this is " + sys.version.split()[0] if not (3, 11) <= sys.version_info < (3, 14) else 0)' \
	&& $(PYTHON) -m venv .venv \
	&& $(BIN)/pip install --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev,server]'; } >$$log 2>&1 & \
	job=$$!; \
	while kill -0 $$job 2>/dev/null; do \
	  [ -t 2 ] && printf '\r  environment  %d s' $$((SECONDS - start)) >&2; sleep 1; \
	done; \
	if wait $$job; then \
	  [ -t 2 ] && printf '\r' >&2; echo "environment  .venv  $$((SECONDS - start)) s" >&2; touch $@; \
	else \
	  echo >&2; tail -n 5 $$log >&2; echo "the environment could not be made; the full log is $$log" >&2; exit 1; \
	fi

lock: .venv/installed
	@{ echo "# Every version that the tests ran with; made by \`make lock\`."; \
	  $(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//'; } > constraints.txt
	@{ echo "# The image's packages and their hashes, PyTorch excepted; made by \`make lock\`."; \
	  $(BIN)/pip-compile -q --generate-hashes --strip-extras --extra server --extra onnx --extra openvino --extra otel --build-deps-for wheel \
	    --unsafe-package torch --no-emit-options --no-annotate --no-header -c constraints.txt -o - \
	    pyproject.toml | sed '/^$$/,$$d'; } > cluster/requirements.lock

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache *.egg-info
