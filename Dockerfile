# The gateway, and the Mosquitto that it runs itself, in one container: docs/container.md ('gateway docs container').
#
#   docker build --tag device-gateway .
#
# It runs as user 10001, needs no capability, and writes to /data and /tmp alone.
ARG PYTHON=3.13-slim-trixie

FROM python:${PYTHON} AS build
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv /opt/gateway \
    && /opt/gateway/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY docs docs
COPY broker_config broker_config
COPY device_sim device_sim
COPY scripts/commit_hook.py scripts/
COPY gateway gateway
# What 'gateway version' names: docker build --build-arg COMMIT=$(git rev-parse HEAD) …
ARG COMMIT=
RUN SOURCE_COMMIT=$COMMIT /opt/gateway/bin/pip install --no-cache-dir --disable-pip-version-check --no-build-isolation --no-deps . \
    && /opt/gateway/bin/pip uninstall --yes --quiet pip

FROM python:${PYTHON}
RUN apt-get update \
    && apt-get install --yes --no-install-recommends mosquitto \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gateway \
    && install --directory --owner gateway --group gateway --mode 0700 /data
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    GATEWAY_DATA_DIR=/data \
    GATEWAY_BROKER=mosquitto \
    GATEWAY_HTTP=0.0.0.0:8080 \
    GATEWAY_MQTT=0.0.0.0:1883 \
    GATEWAY_LOG_FORMAT=json
USER gateway
WORKDIR /tmp
VOLUME /data
EXPOSE 8080 1883
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s CMD ["gateway", "health"]
ENTRYPOINT ["gateway"]
CMD ["serve"]
