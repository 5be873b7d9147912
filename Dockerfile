# The service, in an image that holds little more than its program. Build: docker build -t approval-authority .
# Bases are pinned by tag; whoever mirrors them pins by digest what has been looked at.

FROM rust:1.95.0-bookworm AS build
ENV CARGO_PROFILE_RELEASE_STRIP=symbols
WORKDIR /build
# Dependencies alone, on sources of nothing: a layer that stays until Cargo.toml or Cargo.lock change. What else Cargo.toml
# names has to be there, and is not built.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/it benches examples \
 && for main in build.rs src/main.rs tests/it/main.rs benches/feed.rs benches/flood.rs benches/full.rs benches/idle.rs benches/load.rs \
      examples/workspace_server.rs; do echo 'fn main() {}' >"$main"; done \
 && touch src/lib.rs \
 && cargo build --release --locked --bin approval-authority \
 && rm -rf build.rs src
COPY build.rs ./
COPY proto proto
COPY migrations migrations
COPY src src
# Files keep the times of the checkout, which may be older than the layer above.
RUN touch src/lib.rs src/main.rs build.rs \
 && cargo build --release --locked --bin approval-authority

FROM gcr.io/distroless/cc-debian12:nonroot
LABEL org.opencontainers.image.title="approval-authority" \
      org.opencontainers.image.description="A human approval, consumed exactly once, in front of every destructive operation" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /build/target/release/approval-authority /usr/local/bin/approval-authority
COPY LICENSE /usr/share/doc/approval-authority/LICENSE
# approval-authority.toml is here, mounted; nothing is written anywhere.
WORKDIR /etc/approval-authority
USER 65532:65532
EXPOSE 50051
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["/usr/local/bin/approval-authority", "health"]
ENTRYPOINT ["/usr/local/bin/approval-authority"]
CMD ["serve"]
