.PHONY: format lint test slow bench ci

format:
	ruff format .
	ruff check --fix .

lint:
	ruff check .
	ruff format --check .
	mypy

test:
	pytest

slow:
	pytest -m slow

bench:
	@for file in benchmarks/bench_*.py; do echo "# $$file" && python "$$file" || exit 1; done

ci:
	bash .ci/run
