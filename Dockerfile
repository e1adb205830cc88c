# One image for the web server, the monitor and the workers: docs/deploying.md says how to run it.
#
# The digest pins the base, the tag says to people what it is; renew both together.
ARG BASE=python:3.12.14-slim-trixie@sha256:78387bc3881b8273120a12ebe6c1ab22b018ccc2c9adf565ae1ac9b536e184ea

FROM ${BASE} AS build
WORKDIR /app
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY requirements/base.txt requirements/
# Wheels only: nothing is compiled, so nothing is needed that compiles.
RUN python -m venv --without-pip .venv \
    && python -m pip --python .venv/bin/python install --require-hashes --no-deps --only-binary=:all: -r requirements/base.txt
COPY manage.py ./
COPY bucketwatch bucketwatch
COPY buckets buckets
COPY scanning scanning
COPY templates templates
# Bytecode now: the file system is read-only later.
RUN ENV_FILE=/dev/null SECRET_KEY=only-for-this-step DATA_DIR="$(mktemp -d)" \
    .venv/bin/python manage.py collectstatic --noinput --verbosity 0 \
    && .venv/bin/python -m compileall -q bucketwatch buckets scanning manage.py

FROM ${BASE}
LABEL org.opencontainers.image.title="bucketwatch" \
      org.opencontainers.image.description="Tells what changed in S3-compatible buckets that cannot push events"
# tini reaps what a killed worker leaves behind: as the first process, only it is given that.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* /usr/local/lib/python3.12/ensurepip \
    && python -m pip uninstall --yes --quiet --root-user-action=ignore pip \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin bucketwatch \
    && install -d -o bucketwatch -g bucketwatch -m 0700 /data
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DATA_DIR=/data
# The embedded vault and SQLite; neither is there with Infisical and PostgreSQL.
VOLUME /data
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s CMD ["python", "-m", "bucketwatch.healthcheck"]
ENTRYPOINT ["tini", "--"]
CMD ["python", "manage.py", "runmonitor"]
