# syntax=docker/dockerfile:1
# The gateway in a small image: one binary, no shell, not root. The configuration is mounted:
#
#   docker build -t passerelle .
#   docker run -p 8443:8443 -v ./passerelle.toml:/etc/passerelle/passerelle.toml:ro passerelle

# ---- build: the compiler stays here ----
# The compiler that benches/profile was made by: with another one the gateway would be slower.
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /source
COPY Cargo.toml Cargo.lock ./
# How the libraries are built, too.
COPY .cargo ./.cargo
# Cargo.toml names the benches, so cargo wants to see them; the profile is among them.
COPY benches ./benches
COPY src ./src
# The caches are BuildKit's and no part of any layer; so the binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --bin passerelle \
    && cp target/release/passerelle /passerelle

# ---- run: the C library, certificate authorities, and a user that is not root ----
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /passerelle /usr/local/bin/passerelle
COPY LICENSE-APACHE LICENSE-MIT /usr/share/doc/passerelle/
USER nonroot
EXPOSE 8080 8443
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/passerelle", "health", "--config", "/etc/passerelle/passerelle.toml"]
ENTRYPOINT ["/usr/local/bin/passerelle"]
CMD ["run", "--config", "/etc/passerelle/passerelle.toml"]
