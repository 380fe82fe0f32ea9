# One image for every service of docker-compose.yml; the command chooses which it is.
#
#   docker build -t tradewind .            or            podman build -t tradewind .
#
# The base is any Debian 12 with apt, e.g. one made with debootstrap (docs/containers.md).
# No compiler is needed or installed: every package of the lock has a wheel.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm
FROM ${BASE_IMAGE}

# lightgbm needs libgomp1; the public Python image brings Python, a bare Debian does not.
RUN apt-get update -q \
    && need="libgomp1 ca-certificates" \
    && { command -v python3.11 >/dev/null || need="$need python3.11"; } \
    && { python3.11 -c "import ensurepip" 2>/dev/null || need="$need python3.11-venv"; } \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $need \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --shell /usr/sbin/nologin tradewind \
    && python3.11 -m venv /opt/venv

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    GIT_PYTHON_REFRESH=quiet \
    NUMBA_CACHE_DIR=/opt/compiled

# What runs, at the versions tested together; the lock's development tools stay outside.
# Another index, and its credentials, come in the optional build secret `pip_conf` (a pip.conf);
# `pip_ca` is a bundle of certificates. Secrets are there while this step runs and are not kept.
# A build argument is kept: the image's history shows the value of each that a RUN sees. So only
# a folder of wheels is one, and an address is refused.
ARG PIP_FIND_LINKS
COPY requirements.lock pyproject.toml /opt/build/
RUN --mount=type=secret,id=pip_conf,target=/run/secrets/pip_conf \
    --mount=type=secret,id=pip_ca,target=/run/secrets/pip_ca \
    case "$PIP_FIND_LINKS" in *://*) echo 'PIP_FIND_LINKS must be a folder; put an address into the secret pip_conf' >&2; exit 1;; esac \
    && if [ -s /run/secrets/pip_conf ]; then export PIP_CONFIG_FILE=/run/secrets/pip_conf; fi \
    && if [ -s /run/secrets/pip_ca ]; then export PIP_CERT=/run/secrets/pip_ca; fi \
    && cd /opt/build \
    && python -c "import tomllib; spec = tomllib.load(open('pyproject.toml', 'rb')); print(*spec['project']['dependencies'], *spec['build-system']['requires'], sep='\n')" > wanted.txt \
    && pip install -q --no-cache-dir --only-binary :all: -r wanted.txt -c requirements.lock

WORKDIR /app
COPY pyproject.toml requirements.lock README.md LICENSE dagster.yaml workspace.yaml ./
COPY tradewind tradewind
COPY registry registry
COPY serving serving
COPY policy policy
COPY assets assets
COPY pipelines pipelines
COPY deploy/workspace.yaml deploy/workspace.yaml
RUN pip install -q --no-build-isolation --no-deps --no-cache-dir -e . \
    && python -m compileall -q . \
    && python -c "import tradewind.features._kernel, tradewind.regimes._kernel" \
    && mkdir -p /state /artifacts && chown -R tradewind /state /artifacts "$NUMBA_CACHE_DIR"

ENV TRADEWIND_HOME=/state
USER tradewind
VOLUME ["/state", "/artifacts"]
CMD ["tradewind", "--help"]
