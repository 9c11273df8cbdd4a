# Builds the worker's image. It runs on CPUs, as user 10001, with a read-only root:
#
#     docker build --tag streamlabel .
#
# Arguments (--build-arg NAME=VALUE):
#   TORCH=cuda            torch for NVIDIA GPUs, which brings gigabytes of CUDA libraries
#   TORCH_INDEX_URL=...   an index of torch's builds, such as a mirror of PyTorch's; without it, a
#                         build for cuda comes from pip's own index. `docker history` shows it, so it
#                         must have no password; pip.conf is the place for those
#   EXTRAS=registry,aws   the extras of pyproject.toml to install
#   PYTHON_IMAGE=...      the base image: Debian with Python 3.11
#   VERSION, REVISION, CREATED   for the labels; `make image` sets them
#   HTTP_PROXY, HTTPS_PROXY, NO_PROXY   docker knows these by itself, and keeps none in the image
# Secrets (--secret id=NAME,src=FILE), which stay out of the image:
#   pip.conf              pip's settings: a private index, its credentials
#   ca.pem                the certificate of a private authority, accepted beside the public ones

ARG PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:528257d48c1da0dcecc2e725d1ae34498d60c965f1241e39cd6a85a8859bdf84


# pip stays out of the image: the stages below mount this one.
FROM ${PYTHON_IMAGE} AS pip
RUN python -m venv /opt/pip
COPY deploy/image/pip deploy/image/install /opt/pip/


# A changed line of pyproject.toml that touches no dependency leaves these files as they were.
FROM ${PYTHON_IMAGE} AS requirements
ARG EXTRAS=registry,aws,tracing
WORKDIR /src
COPY pyproject.toml deploy/constraints.txt deploy/image/requirements.py ./
RUN python requirements.py "$EXTRAS" /requirements


FROM pip AS wheel
WORKDIR /src
COPY pyproject.toml README.md setup.py LICENSE NOTICE ./
COPY schemas ./schemas
COPY worker ./worker
RUN --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    /opt/pip/pip wheel --no-deps --wheel-dir /wheel .


# The worker's environment, in layers in order of change: torch, packages, the bundled model, the
# project. It has no pip, and neither has the Python below it. The official image comes without
# compiled code, which each start would compile in memory, because a worker can't write it.
FROM ${PYTHON_IMAGE} AS packages
RUN python -m venv --without-pip /opt/streamlabel \
    && mkdir /opt/streamlabel/share \
    && library=$(python -c "import sysconfig; print(sysconfig.get_path('stdlib'))") \
    && rm -rf "$library/ensurepip" "$library"/site-packages/* /usr/local/bin/pip* \
    && python -m compileall -qq -x '/(test|idlelib|lib2to3|tkinter|turtledemo)/' "$library"

ARG TORCH=cpu
ARG TORCH_INDEX_URL=""
RUN --mount=type=bind,from=pip,source=/opt/pip,target=/opt/pip \
    --mount=type=bind,from=requirements,source=/requirements/torch.txt,target=/mnt/torch.txt \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    /opt/pip/install torch /mnt/torch.txt

RUN --mount=type=bind,from=pip,source=/opt/pip,target=/opt/pip \
    --mount=type=bind,from=requirements,source=/requirements,target=/mnt/requirements \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    /opt/pip/install --requirement /mnt/requirements/packages.txt \
        --constraint /mnt/requirements/constraints.txt


# The bundled model is made of an encoder, whose package is not kept, and of the project's adapter.
# Only the code that makes it is copied, so that no other change makes it again.
FROM packages AS model
WORKDIR /src
COPY worker/__init__.py worker/errors.py worker/logs.py worker/packages.py ./worker/
COPY worker/inference/__init__.py ./worker/inference/
COPY worker/inference/bundled ./worker/inference/bundled
RUN --mount=type=bind,from=pip,source=/opt/pip,target=/opt/pip \
    --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    export PATH=/opt/streamlabel/bin:$PATH \
    && encoder=$(python -c 'from worker.inference.bundled.encoder import *; print(REQUIREMENT)') \
    && /opt/pip/pip --python /opt/streamlabel/bin/python install --no-deps "$encoder" \
    && python -c "from pathlib import Path; from worker.inference.bundled import prepare, SHIPPED; \
        SHIPPED.parent.mkdir(); prepare(Path('/tmp')).rename(SHIPPED)" \
    && find /opt/streamlabel/share -exec touch --date '1980-01-01' {} +


# The project comes last, so that a change of its code makes one new layer.
FROM packages

# A numeric user lets Kubernetes verify runAsNonRoot. The group 0 is for platforms that choose a
# user of their own, such as OpenShift.
RUN useradd --uid 10001 --home-dir /var/lib/streamlabel --no-create-home streamlabel \
    && install --directory --owner 10001 --group 0 --mode 775 /var/lib/streamlabel
WORKDIR /var/lib/streamlabel
COPY deploy/image/healthy /usr/local/bin/
COPY --from=model /opt/streamlabel/share /opt/streamlabel/share
RUN --mount=type=bind,from=pip,source=/opt/pip,target=/opt/pip \
    --mount=type=bind,from=wheel,source=/wheel,target=/mnt/wheel \
    --mount=type=secret,id=pip.conf --mount=type=secret,id=ca.pem \
    /opt/pip/install --no-deps /mnt/wheel/*.whl

# The worker writes to /var/lib/streamlabel and /tmp only; the rest can be mounted read-only.
ENV PATH=/opt/streamlabel/bin:$PATH \
    HOME=/var/lib/streamlabel \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/var/lib/streamlabel/hub \
    STREAMLABEL_MODEL_CACHE_DIR=/var/lib/streamlabel/models \
    STREAMLABEL_HTTP_HOST=0.0.0.0 \
    STREAMLABEL_HTTP_PORT=9100
USER 10001
VOLUME /var/lib/streamlabel
EXPOSE 9100
STOPSIGNAL SIGTERM

# Asks for liveness, because platforms restart an unhealthy container: while the broker is away,
# /readyz fails, and a restart would not help.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=4 CMD ["healthy", "/livez"]

ENTRYPOINT ["streamlabel"]
CMD ["run"]

ARG VERSION=local
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="streamlabel" \
      org.opencontainers.image.description="A Kafka worker that labels text streams with a transformer model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/streamlabel/streamlabel" \
      org.opencontainers.image.documentation="https://streamlabel.github.io/streamlabel/" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED"
