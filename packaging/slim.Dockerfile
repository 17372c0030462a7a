# The binary that `just dist` built and the libraries that it loads, nothing else: no shell, no
# package manager. The context is a folder with that binary:
#   docker build -f packaging/slim.Dockerfile -t tidemill:0.1.0-slim target/dist
FROM debian:12.12-slim AS files
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates zlib1g \
    && rm -rf /var/lib/apt/lists/*
COPY tidemill /files/usr/local/bin/tidemill
RUN set -eu \
    && for library in $(ldd /files/usr/local/bin/tidemill | grep -o '/[^ ]*'); do \
         mkdir -p "/files$(dirname "$library")" && cp -L "$library" "/files$library"; \
       done \
    && mkdir -p /files/etc/ssl/certs /files/tmp /files/var/lib/tidemill/journal \
    && cp /etc/ssl/certs/ca-certificates.crt /files/etc/ssl/certs/ \
    && echo 'tidemill:x:10001:10001::/var/lib/tidemill:/sbin/nologin' >/files/etc/passwd \
    && echo 'tidemill:x:10001:' >/files/etc/group \
    && chmod 1777 /files/tmp && chown -R 10001:10001 /files/var/lib/tidemill

FROM scratch
COPY --from=files /files /
USER 10001
WORKDIR /var/lib/tidemill
ENTRYPOINT ["tidemill"]
