# `make` starts the service with a database of its own, `make test` tests it, `make lint` is what a change must pass.
# What these need beside Rust is found, or fetched, by scripts/, which print where it is; see the head of each.

# rustup's programs, for shells that have not read its environment file.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Cheap ones first.
checks := fmt check-architecture check-sql test-checks check-go hadolint deploy buf client clippy deny

.DEFAULT_GOAL := run
.PHONY: run test bench image-test systemd-test compose-test lint advisories $(checks) list-checks linker help

run: linker ## start the service for trying it out; ARGS="--listen 127.0.0.1:50052" goes to `dev`
	pg_bin=$$(scripts/postgres) && PG_BIN=$$pg_bin cargo run --locked -- dev $(ARGS)

test: linker ## run the tests; ARGS="name" for some, PG_BIN=DIR for another server
	pg_bin=$$(scripts/postgres) && grpcurl=$$(scripts/grpcurl) && promtool=$$(scripts/promtool) && \
	  python=$$(scripts/python-grpc) && shells=$$(scripts/shells) && \
	  PG_BIN=$$pg_bin GRPCURL=$$grpcurl PROMTOOL=$$promtool PYTHON_GRPC=$$python SHELLS=$$shells cargo test --locked -- --show-output $(ARGS)

bench: linker ## measure; figures of one run belong together
	pg_bin=$$(scripts/postgres) && PG_BIN=$$pg_bin cargo bench --locked --bench '*' $(ARGS)

systemd-test: ## test the systemd unit, as root, in a Debian that is booted for it; see scripts/test-systemd
	cargo build --release --locked && scripts/test-systemd

compose-test: ## test deploy/compose.yaml, with docker and the image it names; see scripts/test-compose
	scripts/test-compose

image-test: ## test a container image, IMAGE=NAME, with docker, podman or buildah; see scripts/test-image
	scripts/test-image $(IMAGE)

lint: $(checks) ## check all that can be checked without running it

fmt: ## check the format of the code
	cargo fmt --check

clippy: linker ## check the code with clippy; warnings are errors
	cargo clippy --all-targets --locked -- -D warnings

# What the client must not bring along, by the beginnings of names.
server_only := tokio-postgres|deadpool|refinery|clap|config|reqwest|tonic-health|tonic-reflection|axum

client: linker ## check that the gate builds without the server, and what it depends on
	cargo clippy --locked --lib --no-default-features --features gate -- -D warnings
	tree=$$(cargo tree --locked --edges normal --prefix none --no-default-features --features gate) && \
	  ! echo "$$tree" | grep -E '^($(server_only))'

hadolint: ## check the Dockerfile
	hadolint=$$(scripts/hadolint) && "$$hadolint" Dockerfile

deploy: ## check the files of deploy/ against the schemas of those who read them
	scripts/check-deploy

buf: ## check the style of the contract
	buf=$$(scripts/buf) && "$$buf" lint

deny: ## check licences, sources and unwanted crates
	deny=$$(scripts/cargo-deny) && "$$deny" --locked check bans licenses sources

advisories: ## check dependencies for known vulnerabilities, whose list is fetched; not a part of lint
	deny=$$(scripts/cargo-deny) && "$$deny" --locked check advisories

check-architecture: ## check the direction of dependencies
	scripts/check-architecture

check-sql: ## check that the SQL stays portable and keeps the promises
	scripts/check-sql

check-go: ## check the gate in Go, where Go is installed
	scripts/check-go

test-checks: ## check check-architecture and check-sql
	scripts/test-checks

# For .ci/run, which times each.
list-checks:
	@echo $(checks)

# Rust links with the C compiler, which a fresh Debian does not have.
linker:
	@command -v cc >/dev/null || scripts/apt-install gcc libc6-dev

help: ## tell what can be made
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
