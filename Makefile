# `make run`, `make dev` and `make test` each do all their set-up by themselves.
BIN := .venv/bin
READY := .venv/ready

.PHONY: run dev test soak check constraints clean

run: $(READY)  ## The main job on a year of real flights.
	@$(BIN)/python -m batch_pipelines.tour

dev: $(READY)  ## Dagster's UI, with sensors running, until Ctrl+C.
	@$(BIN)/batch-pipelines dev

test: $(READY) check  ## Everything that must hold.
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

soak: $(READY)  ## What takes too long for every change; results go to docs/soak.md. ONLY=tests/... runs one.
	$(BIN)/python scripts/soak.py $(ONLY)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/dagster definitions validate -w workspace.yaml

$(READY): pyproject.toml constraints.txt scripts/setup.sh
	@PYTHON="$(PYTHON)" sh scripts/setup.sh  # make PYTHON=... chooses one

constraints: $(READY)  ## Renew the pinned versions.
	sh scripts/pin.sh

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache
