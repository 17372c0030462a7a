# One binary. The builder is thrown away; what is left is Debian with the binary and certificates.
FROM rust:1.95.0-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential pkg-config zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
# The image's own compiler builds it: rust-toolchain.toml would have rustup fetch components.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /tidemill
COPY . .
RUN cargo build --release --locked -p tidemill --bin tidemill

FROM debian:12.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/tidemill --create-home tidemill \
    && mkdir /var/lib/tidemill/journal && chown tidemill /var/lib/tidemill/journal
COPY --from=build /tidemill/target/release/tidemill /usr/local/bin/tidemill
USER tidemill
WORKDIR /var/lib/tidemill
ENTRYPOINT ["tidemill"]
