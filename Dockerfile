# The bridge as an image: built from source, run by nobody in particular on a small Debian.
#   docker build -t bcbridge .

FROM rust:1.95-bookworm AS build
WORKDIR /src
# The build needs what this image has: a C compiler, make and perl (librdkafka and its TLS come as source).
COPY Cargo.toml Cargo.lock ./
COPY src ./src
COPY schemas ./schemas
COPY benches ./benches
COPY tests ./tests
RUN cargo build --release --locked --bin bcbridge

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin bcbridge \
 && install --directory --owner=bcbridge --group=bcbridge --mode=0700 /var/lib/bcbridge
COPY --from=build /src/target/release/bcbridge /usr/local/bin/bcbridge
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/bcbridge/
USER bcbridge
# The spool is written below the working directory when Kafka cannot be reached.
WORKDIR /var/lib/bcbridge
VOLUME /var/lib/bcbridge
# 8080 takes callbacks; 8081 is the console, which belongs behind a token.
EXPOSE 8080 8081
# The console on loopback says whether every part is ready. bash speaks TCP, so the image needs no HTTP client.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8081 && printf 'GET /readyz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
# A stop drains for at most 25 s; give it 30: docker stop --time 30.
STOPSIGNAL SIGTERM
ENTRYPOINT ["bcbridge"]
CMD ["run"]
