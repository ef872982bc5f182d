# The container image: docs/IMAGE.md has what to type, `.ci/image` builds it without Docker and tries what comes out.
#
# Plain Dockerfile: no BuildKit syntax and no cache mounts, so that `docker build`, `buildah bud`, Kaniko and Railway all
# take it. What is compiled of the dependencies is an ordinary layer.
#
#   dependencies   everything in Cargo.lock that the program needs, compiled before a line of ours is looked at
#   build          Velro and the three libraries of plugins/, and what goes into the image in its final shape
#   (last)         Debian's C library, and that

# The Rust of `rust-version` in Cargo.toml, and the same Debian in both: a library is loaded into a program with the same glibc.
# Another registry, or a digest: --build-arg BUILD_IMAGE=... --build-arg RUNTIME_IMAGE=...
ARG BUILD_IMAGE=docker.io/library/rust:1.95-slim-bookworm
ARG RUNTIME_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${BUILD_IMAGE} AS dependencies
WORKDIR /build
# The same sources make the same bytes: no path of the building machine and no date in what is compiled, by Rust or by C.
ENV RUSTFLAGS="--remap-path-prefix=${CARGO_HOME}/registry/src=/cargo --remap-path-prefix=/build=/velro" \
    CFLAGS="-ffile-prefix-map=${CARGO_HOME}/registry/src=/cargo -ffile-prefix-map=/build=/velro" \
    SOURCE_DATE_EPOCH=0 \
    PACKAGES="-p velro -p velro-replicate -p velro-openai-images -p velro-comfyui"
# The manifests of all members: cargo reads the whole workspace, whatever is built of it.
COPY Cargo.toml Cargo.lock ./
COPY server/Cargo.toml server/
COPY plugins/sdk/Cargo.toml plugins/sdk/
COPY plugins/replicate/Cargo.toml plugins/replicate/
COPY plugins/openai-images/Cargo.toml plugins/openai-images/
COPY plugins/comfyui/Cargo.toml plugins/comfyui/
COPY tests/Cargo.toml tests/
COPY tests/zoo/Cargo.toml tests/zoo/
COPY benches/Cargo.toml benches/
# Every member is an empty library for now. What was made of those is taken away again: their files are newer than the real
# ones, and cargo would believe that nothing has changed.
RUN for manifest in */Cargo.toml */*/Cargo.toml; do \
        mkdir "${manifest%Cargo.toml}src" && : >"${manifest%Cargo.toml}src/lib.rs" || exit 1; \
    done \
 && cargo build --release --locked ${PACKAGES} \
 && cargo clean --release --locked ${PACKAGES} -p velro-plugin

FROM dependencies AS build
COPY migrations migrations
COPY plugins plugins
COPY server server
# Shown by /__version. Railway says what it builds by itself.
ARG RAILWAY_GIT_COMMIT_SHA=unknown
ARG VELRO_COMMIT=${RAILWAY_GIT_COMMIT_SHA}
RUN cargo build --release --locked ${PACKAGES}
# As the image will have it. Velro loads what lies in /plugins itself: a link that leads out of the folder is refused.
# Tables of lines are three quarters of the program, and a panic names its line without them; functions keep their names.
COPY providers.toml ./
RUN strip --strip-debug target/release/velro target/release/libvelro_*.so \
 && install -D target/release/velro /image/usr/local/bin/velro \
 && install -D -m 644 providers.toml /image/etc/velro/providers.toml \
 && install -D -m 644 -t /image/plugins target/release/libvelro_replicate.so \
        target/release/libvelro_openai_images.so target/release/libvelro_comfyui.so \
 && (cd /image/plugins && sha256sum libvelro_*.so | tee SHA256SUMS) \
 && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
 && install -d /data

# Debian and not a distroless image: a library of somebody else may need another one (`apt-get install` in an image made FROM
# this), and an operator has a shell. Nothing is run in this stage, so that another base with glibc can be named above.
FROM ${RUNTIME_IMAGE}
ARG RAILWAY_GIT_COMMIT_SHA=unknown
ARG VELRO_COMMIT=${RAILWAY_GIT_COMMIT_SHA}
LABEL org.opencontainers.image.title="Velro" \
      org.opencontainers.image.description="Turns AI model providers into a paid, multi-tenant generation API" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${VELRO_COMMIT}"
# The program, the registry, the libraries, and the authorities that outgoing TLS is checked against.
COPY --from=build /image /
# No VOLUME: a build at Railway refuses it. A volume that is made for /data takes over this owner.
COPY --from=build --chown=65532:65532 /data /data

# Production is strict: without JWT_SECRET it does not start, and says so. It listens on 0.0.0.0 and logs JSON.
ENV ENVIRONMENT=production \
    VELRO_DATA=/data \
    VELRO_PLUGIN_DIR=/plugins \
    VELRO_PROVIDERS=/etc/velro/providers.toml
# velro.toml is looked for here.
WORKDIR /etc/velro
# A number: Kubernetes cannot see whether a name is root (runAsNonRoot).
USER 65532:65532
# The API, or the PORT that is given; probes and metrics for the inside.
EXPOSE 8000 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 CMD ["/usr/local/bin/velro", "healthcheck"]
# No shell in between: it would be process 1, and SIGTERM would end there.
ENTRYPOINT ["/usr/local/bin/velro"]
