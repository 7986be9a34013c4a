# Builds the server from the lock file and runs it as an ordinary user.
#
#   docker build -t gradus .
#   docker run --rm --stop-timeout 45 -p 127.0.0.1:8080:8080 -v gradus:/data gradus
#
# The image listens on all of the container's interfaces: publish the port on an address that only your trainers reach,
# or set GRADUS_API_TOKEN.

# What the first and the last stage start from; both of the same system, or the last one of a newer one. `FEATURES=cuda` needs nvcc
# in the first and the CUDA runtime in the last, such as BUILD_IMAGE=nvidia/cuda:13.0.1-devel-ubuntu24.04 and
# RUN_IMAGE=nvidia/cuda:13.0.1-runtime-ubuntu24.04.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG RUN_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
# Rust's own image has it there; an image without Rust gets it there, and a C compiler.
ENV CARGO_HOME=/usr/local/cargo RUSTUP_HOME=/usr/local/rustup PATH=/usr/local/cargo/bin:${PATH}
ARG RUST=1.95
RUN if ! command -v cargo >/dev/null; then \
        apt-get update && apt-get install -y --no-install-recommends build-essential ca-certificates curl && \
        rm -rf /var/lib/apt/lists/* && \
        curl -fsSo /tmp/rustup.sh https://sh.rustup.rs && \
        sh /tmp/rustup.sh -y --no-modify-path --profile minimal --default-toolchain "${RUST}"; \
    fi
# Features of the crate, comma-separated.
ARG FEATURES=""
# For `cuda`: the GPU's compute capability without its dot.
ARG CUDA_COMPUTE_CAP="80"
# Whether the build gets a profile of its own work, which takes a sixth off the CPU time of scoring and doubles the time of
# building this crate. Never with features: what they need is not there while the image is built.
ARG PROFILED="yes"
WORKDIR /build
COPY . .
# The caches live outside the layer, so that a change of the source recompiles only this crate. With features the build has a
# folder of its own: it comes from another image.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target,sharing=locked \
    if [ "${PROFILED}${FEATURES}" = "yes" ]; then \
        rustup component add llvm-tools && .ci/profiled --locked && cp target/profiled/gradus /gradus; \
    else \
        out="target${FEATURES:+/${FEATURES}}" && \
        cargo build --release --locked --features "${FEATURES}" --target-dir "${out}" && cp "${out}/release/gradus" /gradus; \
    fi

FROM ${RUN_IMAGE}
# What https:// is trusted by: judges elsewhere, and models of a hub.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --home-dir /data --create-home gradus
COPY --from=build /gradus /usr/local/bin/gradus
USER 10001
WORKDIR /data
ENV GRADUS_LISTEN=0.0.0.0:8080 \
    GRADUS_STORE=sqlite:/data/gradus.db \
    GRADUS_LOG_FORMAT=json
VOLUME /data
EXPOSE 8080
# Bash opens the connection itself: the image needs no HTTP client. A judge may take minutes to load; the first success ends that time.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10m --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/${GRADUS_LISTEN##*:} && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r status <&3 && [[ $status == *' 200 '* ]]"]
ENTRYPOINT ["gradus"]
CMD ["serve"]
