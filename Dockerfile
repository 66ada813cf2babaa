# One build, three images (docs/containers.md):
#
#   docker build --target backend     -t bore-platform/backend:0.1.0 .       also migrates: node dist/platform/database/migrate.js up
#   docker build --target bore-server -t bore-platform/bore-server:0.1.0 .
#   docker build --target borectl     -t bore-platform/borectl:0.1.0 .
#
# Pinned by version. Pin the digest too where you build for production: --build-arg NODE_IMAGE=node:24.21.0-bookworm-slim@sha256:…
ARG NODE_IMAGE=node:24.21.0-bookworm-slim

# Paths in RUN are relative: a test runs the same lines in a clean folder, where there is no Docker.
FROM ${NODE_IMAGE} AS build
WORKDIR /build
# changes seldom, and takes longest
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY tsconfig.json prisma.config.ts ./
COPY scripts/prepare.mjs scripts/package.mjs ./scripts/
COPY prisma ./prisma
COPY src ./src
RUN npm run build
RUN node scripts/package.mjs backend out/backend \
  && node scripts/package.mjs bore-server out/bore-server \
  && node scripts/package.mjs borectl out/borectl \
  && mkdir out/data

# What all images have in common. Nothing runs as root, and nothing that runs may change what it runs from.
FROM ${NODE_IMAGE} AS runtime
LABEL org.opencontainers.image.version="0.1.0" \
  org.opencontainers.image.licenses="MIT"
ENV NODE_ENV=production
WORKDIR /app
# a number, so that Kubernetes can see that it is not root's
USER 10001:10001
# The programs are process 1: they handle SIGTERM, and start no other process that somebody would have to reap.
STOPSIGNAL SIGTERM

# Writes nothing: the root file system may be read-only.
FROM runtime AS backend
LABEL org.opencontainers.image.title="bore-platform backend" \
  org.opencontainers.image.description="Control plane: API, placement, events, jobs"
COPY --from=build /build/out/backend ./
EXPOSE 3000
# whether it runs: a database that is away is no reason to restart it
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT || 3000}/health/live`).then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
CMD ["node", "dist/main.js"]

# Writes its state file only, in /var/lib/bore.
FROM runtime AS bore-server
LABEL org.opencontainers.image.title="bore-platform bore-server" \
  org.opencontainers.image.description="Data plane: the public end of tunnels, for unmodified bore clients"
COPY --from=build /build/out/bore-server ./
COPY --from=build --chown=10001:10001 /build/out/data /var/lib/bore
ENV BORE_DATA_DIR=/var/lib/bore
VOLUME ["/var/lib/bore"]
# clients; health, metrics and orders; peers. Public ports are those of BORE_PORT_RANGE.
EXPOSE 7835 7836 7837
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.BORE_ADMIN_PORT || 7836}/health`).then(({ ok }) => process.exit(ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "dist/bore-server/main.js"]

# Keeps its login in /data, where somebody wants that: -v borectl:/data
FROM runtime AS borectl
LABEL org.opencontainers.image.title="bore-platform borectl" \
  org.opencontainers.image.description="Client: public addresses for local TCP ports"
COPY --from=build /build/out/borectl ./
COPY --from=build --chown=10001:10001 /build/out/data /data
ENV XDG_CONFIG_HOME=/data
# it runs for as long as somebody wants, and says by itself when it cannot
HEALTHCHECK NONE
ENTRYPOINT ["node", "dist/cli/main.js"]
