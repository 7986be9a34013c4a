# Builds the server from the lock file and runs it as an ordinary user.
#
#   docker build -t gradus .
#   docker run --rm -p 127.0.0.1:8080:8080 -v gradus:/data gradus
#
# The image listens on all of the container's interfaces: publish the port on an address that only your trainers reach,
# or set GRADUS_API_TOKEN.

ARG RUST=1.95-slim-bookworm
ARG DEBIAN=bookworm-slim

FROM rust:${RUST} AS build
# Features of the crate, comma-separated. `cuda` needs nvcc in this stage and the CUDA runtime in the last one: start both
# from images that hold them.
ARG FEATURES=""
# Whether the build gets a profile of its own work, which takes a sixth off the CPU time of scoring and doubles the time of
# building this crate. Never with features: what they need is not there while the image is built.
ARG PROFILED="yes"
WORKDIR /build
COPY . .
# The caches live outside the layer, so that a change of the source recompiles only this crate.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target,sharing=locked \
    if [ "${PROFILED}${FEATURES}" = "yes" ]; then \
        rustup component add llvm-tools && .ci/profiled --locked && cp target/profiled/gradus /gradus; \
    else \
        cargo build --release --locked --features "${FEATURES}" && cp target/release/gradus /gradus; \
    fi

FROM debian:${DEBIAN}
RUN useradd --system --uid 10001 --home-dir /data --create-home gradus
COPY --from=build /gradus /usr/local/bin/gradus
USER 10001
WORKDIR /data
ENV GRADUS_LISTEN=0.0.0.0:8080 \
    GRADUS_STORE=sqlite:/data/gradus.db \
    GRADUS_LOG_FORMAT=json
VOLUME /data
EXPOSE 8080
# Bash opens the connection itself: the image needs no HTTP client.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/${GRADUS_LISTEN##*:} && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r status <&3 && [[ $status == *' 200 '* ]]"]
ENTRYPOINT ["gradus"]
CMD ["serve"]
