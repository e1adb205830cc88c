# The verbs of this project. Each does its own set-up; nothing has to be typed before it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo run test test-ceph lint format docs chaos bench screenshots requirements audit licences chromium ceph

# Call programs as modules: the scripts in .venv/bin break when the directory is moved.
PY := .venv/bin/python
# The files in requirements/ name everything, so nothing is left to resolve: older versions of pip, asked to,
# take the newest release for an extra (coverage[toml]) and then refuse it, as its hash is not listed.
PIP_INSTALL := $(PY) -m pip install --quiet --quiet --disable-pip-version-check --require-hashes --no-deps

# Settings for checks that read no data: nobody's .env, database or secrets.
THROW_AWAY = export ENV_FILE=/dev/null CONFIG_PATH= SECRET_KEY="$$($(PY) -c 'import secrets; print(secrets.token_urlsafe(50))')"; \
	DATA_DIR="$$(mktemp -d)"; export DATA_DIR; trap 'rm -rf "$$DATA_DIR"' EXIT

help: ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 22

demo: .venv/.demo ## everything on this machine: buckets that change, notifications, a page (PORT=8080)
	@exec $(PY) -m bucketwatch.demo --with-parent

run: .venv/.base ## web, scheduler and workers with the settings in .env
	@if [ ! -f .env ] && [ -z "$${ENV_FILE:-}$${SECRET_KEY:-}" ]; then
		echo "make run: there is no .env: copy .env.example to .env and set SECRET_KEY ('make demo' needs none)" >&2
		exit 1
	fi
	$(PY) manage.py migrate --noinput --verbosity 0
	exec $(PY) manage.py runmonitor

test: .venv/.dev chromium ## every test (ARGS='-k word' passes options to pytest)
	@exec $(PY) -m pytest -n 3 --dist worksteal $(ARGS)

test-ceph: .venv/.dev ceph ## the tests that ask a real Ceph gateway, which runs here for as long
	@exec $(PY) -m pytest tests/ceph -m ceph $(ARGS)

lint: .venv/.dev ## ruff, mypy, import contracts, migrations, Django's checks
	@$(THROW_AWAY)
	$(PY) -m pip check --disable-pip-version-check
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy --no-error-summary
	.venv/bin/lint-imports
	$(PY) manage.py makemigrations --check --dry-run
	$(PY) manage.py check --fail-level WARNING

format: .venv/.dev ## let ruff put imports and layout right
	@$(PY) -m ruff check --fix-only --quiet
	$(PY) -m ruff format --quiet

chaos: .venv/.dev ## kill and fail everything beside a model that knows the truth (SECONDS=120 SEED=)
	@exec $(PY) -m tests.chaos --with-parent --seconds $(or $(SECONDS),120) $(if $(SEED),--seed $(SEED))

bench: .venv/.bench ## how fast scanning is, against peers on this machine (QUICK=1 to try it)
	@exec $(PY) -m bench

docs: .venv/.docs ## the documentation as a site: site/index.html
	@$(PY) -m mkdocs build --quiet
	@echo "Open site/index.html"

screenshots: .venv/.dev chromium ## make the pictures of the documentation anew
	@exec $(PY) -m docs.screenshots

requirements: .venv/.created ## pin the newest versions that requirements/*.in allow
	@$(PY) -m pip install --quiet --quiet --disable-pip-version-check uv
	export UV_CUSTOM_COMPILE_COMMAND="make requirements"
	COMPILE="$(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate"
	$$COMPILE --upgrade requirements/dev.in --output-file requirements/dev.txt
	for set in demo base bench docs; do # the same versions everywhere
		rm -f requirements/$$set.txt
		$$COMPILE requirements/$$set.in --constraint requirements/dev.txt --output-file requirements/$$set.txt
	done

audit: .venv/.dev ## ask the package index for known vulnerabilities of what is pinned
	@$(PY) -m pip_audit --strict --disable-pip --require-hashes --requirement requirements/dev.txt --requirement requirements/bench.txt

licences: .venv/.dev ## write docs/licences.md: the licence of everything that is deployed
	@$(PY) -m docs.licences

# One chromium for the browser tests. Without it they are skipped, and say so.
chromium:
	@if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then
		echo "Installing chromium for the browser tests …"
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; } \
			>/dev/null 2>&1 || echo "… it could not be installed: browser tests will be skipped" >&2
	fi

# Ceph from Debian's packages, as root or by a sudo that asks nothing; none of its services gets a
# configuration. Without it its tests are skipped, and say so.
ceph:
	@if ! { command -v radosgw && command -v ceph-mon && command -v ceph-osd; } >/dev/null && command -v apt-get >/dev/null; then
		echo "Installing Ceph for the tests that ask it …"
		as_root=; [ "$$(id -u)" = 0 ] || as_root="sudo -n"
		{ $$as_root apt-get update -qq && $$as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -qq \
			--no-install-recommends ceph-common ceph-mon ceph-osd radosgw; } >/dev/null 2>&1 ||
			echo "… it could not be installed: tests that ask Ceph will be skipped" >&2
	fi

.venv/.base: requirements/base.txt .venv/.created
	@echo "Installing requirements/base.txt into .venv …"
	$(PIP_INSTALL) -r requirements/base.txt
	touch .venv/.base

.venv/.demo: requirements/demo.txt .venv/.created
	@echo "Installing requirements/demo.txt into .venv …"
	$(PIP_INSTALL) -r requirements/demo.txt
	touch .venv/.base .venv/.demo

.venv/.dev: requirements/dev.txt .venv/.created
	@echo "Installing requirements/dev.txt into .venv …"
	$(PIP_INSTALL) -r requirements/dev.txt
	touch .venv/.base .venv/.demo .venv/.dev .venv/.docs

.venv/.bench: requirements/bench.txt .venv/.created
	@echo "Installing requirements/bench.txt into .venv …"
	$(PIP_INSTALL) -r requirements/bench.txt
	touch .venv/.base .venv/.bench

.venv/.docs: requirements/docs.txt .venv/.created
	@echo "Installing requirements/docs.txt into .venv …"
	$(PIP_INSTALL) -r requirements/docs.txt
	touch .venv/.docs

# A python on PATH may be a version manager's shim that only prints an error, so try each.
RIGHT_PYTHON := import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))
.venv/.created:
	@if $(PY) -c 'import pip; $(RIGHT_PYTHON)' 2>/dev/null; then
		touch .venv/.created
		exit 0
	fi
	found=
	for candidate in $${PYTHON:-} $$(type -aP python3.12 python3.11 python3 python); do
		if "$$candidate" -c '$(RIGHT_PYTHON)' 2>/dev/null; then found="$$candidate"; break; fi
	done
	if [ -z "$$found" ]; then
		echo "make: bucketwatch needs Python 3.11 or 3.12, and PATH has neither; install one, or name it: make PYTHON=/path/to/python3.12" >&2
		exit 1
	fi
	package="$$("$$found" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
		echo "Installing $$package …"
		{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$$package"; } >/dev/null 2>&1 || true
	fi
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then
		echo "make: $$found has no venv module; run: sudo apt-get install $$package" >&2
		exit 1
	fi
	"$$found" -m venv --clear .venv
	touch .venv/.created
