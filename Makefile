# Everything that is done with this repository, by name. `make help` lists it.

.DEFAULT_GOAL := help
.PHONY: help run cluster cluster-test test deploy-check deploy-test package package-test vm-test lint audit bench bench-pages simulate doctor fuzz

RUN_ARGS ?=
# Of `make simulate` and `make bench`.
ARGS ?=
# Of each fuzz target, in seconds: in `make test`, and in `make fuzz`.
FUZZ_SHORT_S ?= 6
FUZZ_S ?= 600

help: ## What there is
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## Install what is missing, build, start on 127.0.0.1:8080 with data under ./.faasd, deploy examples/ (RUN_ARGS=--no-install skips installing)
	@scripts/run.sh $(RUN_ARGS)

cluster: ## A fleet on this machine: Redis, what stands in for AWS, two controllers, three workers, an example (PORT=18080, CLUSTER_DIR)
	@scripts/cluster.sh

cluster-test: ## The chaos run at full length: 20 000 calls while everything dies (CHAOS_SEED repeats a run)
	@scripts/install-test-deps.sh
	cargo build --locked --example cloud
	CHAOS_CALLS=$${CHAOS_CALLS:-20000} cargo test --locked --test integration -- cluster:: --nocapture

test: ## Install what the tests need and run them all
	@scripts/install-test-deps.sh
	cargo test --locked
	scripts/fuzz.sh all $(FUZZ_SHORT_S)
	scripts/deploy-check.sh

deploy-check: ## Check Terraform, units, image, rules and dashboards, as far as this machine has the tools
	@scripts/deploy-check.sh

deploy-test: ## Apply both examples of terraform/ to an emulator of AWS and plan them again; minutes long
	@scripts/deploy-test.sh

package: ## Build the release and its Debian package, in target/
	cargo build --release --locked
	@packaging/deb.sh "$${CARGO_TARGET_DIR:-target}/release/faasd" "$${CARGO_TARGET_DIR:-target}"

package-test: ## Install the package into a root made for that, and look (needs root and a network)
	@scripts/deploy-package.sh

vm-test: ## Boot the release in a machine with systemd and pure cgroup v2, emulated in software; an hour at most (docs/vm.md)
	cargo build --release --locked
	@scripts/vm-test.sh

fuzz: ## Fuzz every target for FUZZ_S seconds each (600)
	scripts/fuzz.sh all $(FUZZ_S)

lint: ## Formatting, clippy and docs, warnings denied
	cargo fmt --check
	rustfmt --check --edition 2024 src/sandbox/sys/zygote.rs
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

audit: ## Licences, bans and sources of the dependencies; advisories where the network allows
	@scripts/audit.sh

bench: ## Every bench, beside the goals and the last run; about a quarter of an hour (ARGS="--rounds 1 --only warm"; benches/README.md)
	@scripts/bench.sh $(ARGS)

bench-pages: ## Write the figures of the last `make bench` into README.md and benches/README.md
	@cargo bench --quiet --locked --bench report -- readme

simulate: ## Replay a trace of calls through the pool by several keep-alive policies (ARGS=--help; docs/policies.md)
	@cargo bench --quiet --locked --bench simulate -- $(ARGS)

doctor: ## What this machine offers, and how to mend what it lacks
	@cargo run --quiet --locked -- doctor
