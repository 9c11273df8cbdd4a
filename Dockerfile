# Builds the worker's image: the first stage makes a virtual environment, the second copies it.
#
# The default torch wheel for Linux on x86-64 runs on CPUs and GPUs, and brings gigabytes of CUDA
# libraries. For a smaller image that runs on CPUs only, pass PyTorch's index of CPU wheels (its
# installation page has the address under pip, compute platform "CPU"):
#
#     docker build --build-arg TORCH_INDEX_URL=... -t streamlabel .
#
# The pinned version holds either way: pip takes "2.13.0+cpu" for a match of "==2.13.0", and prefers
# it as the newer one.

FROM python:3.11-slim-bookworm AS build

ARG TORCH_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/streamlabel/bin:$PATH
RUN python -m venv /opt/streamlabel

# Layers in order of change, for the build cache: torch, the other dependencies, the project.
WORKDIR /src
COPY deploy/constraints.txt ./deploy/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} \
        --constraint deploy/constraints.txt torch

COPY pyproject.toml ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
        print(*p['dependencies'], sep='\n')" \
        > requirements.txt \
    && pip install --constraint deploy/constraints.txt --requirement requirements.txt

COPY README.md LICENSE ./
COPY schemas ./schemas
COPY worker ./worker
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps .


FROM python:3.11-slim-bookworm

# A numeric user lets Kubernetes verify runAsNonRoot.
RUN useradd --uid 10001 --home-dir /var/lib/streamlabel --create-home streamlabel
COPY --from=build /opt/streamlabel /opt/streamlabel

# The worker writes to /var/lib/streamlabel and /tmp only; the rest can be mounted read-only.
ENV PATH=/opt/streamlabel/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/var/lib/streamlabel/hub \
    STREAMLABEL_MODEL_CACHE_DIR=/var/lib/streamlabel/models \
    STREAMLABEL_HTTP_HOST=0.0.0.0 \
    STREAMLABEL_HTTP_PORT=9100
USER 10001
WORKDIR /var/lib/streamlabel

# Prepares the bundled model, so that it needs no network later, and tests the image.
RUN streamlabel classify --model bundled "It works, and I like it."

VOLUME /var/lib/streamlabel
EXPOSE 9100
STOPSIGNAL SIGTERM

# Asks for liveness, because platforms restart an unhealthy container: while the broker is away,
# /readyz fails, and a restart would not help.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=4 \
    CMD python -c "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=4)" \
        "http://127.0.0.1:${STREAMLABEL_HTTP_PORT}/livez"

ENTRYPOINT ["streamlabel"]
CMD ["run"]
