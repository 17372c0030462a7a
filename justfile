# `just` lists these; each is also one plain command.

# Every test, on the real services.
test *ARGS:
    ./test {{ARGS}}

# What clippy and rustfmt have to say.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

fmt:
    cargo fmt --all

# The benchmarks beside their baselines.
bench *ARGS:
    bench/run {{ARGS}}

# All that is released: binary, man pages, Debian package, wheel, archive, chart, image, sums.
dist *ARGS:
    packaging/dist {{ARGS}}

# The real services for development: start, stop.
up *ARGS:
    services/up {{ARGS}}

down *ARGS:
    services/down {{ARGS}}

# Known vulnerabilities of the crates; fetches the advisory database.
advisories:
    cargo deny --all-features check advisories
