# The worker's image. The first stage makes a virtual environment; the second takes that alone.
#
# CPU or GPU? The stock torch wheel for Linux on x86-64 runs on either, and brings gigabytes of
# CUDA libraries for it. For a small image that computes on the CPU, pass the address of PyTorch's
# index of CPU wheels (its installation page names it: pip, compute platform "CPU"):
#
#     docker build --build-arg TORCH_INDEX_URL=... -t streamlabel .
#
# Either way the version is the locked one: to pip, "2.13.0+cpu" satisfies "==2.13.0" and is newer.

FROM python:3.11-slim-bookworm AS build

ARG TORCH_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PATH=/opt/streamlabel/bin:$PATH
RUN python -m venv /opt/streamlabel

# What changes least comes first: torch, then the other dependencies, then the project.
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

COPY README.md setup.py LICENSE ./
COPY schemas ./schemas
COPY worker ./worker
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps .


FROM python:3.11-slim-bookworm

# A fixed number lets a cluster demand "not root" without knowing names.
RUN useradd --uid 10001 --home-dir /var/lib/streamlabel --create-home streamlabel
COPY --from=build /opt/streamlabel /opt/streamlabel

# All that is written lies in /var/lib/streamlabel and /tmp; the rest may be mounted read-only.
ENV PATH=/opt/streamlabel/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/var/lib/streamlabel/hub \
    STREAMLABEL_MODEL_CACHE_DIR=/var/lib/streamlabel/models \
    STREAMLABEL_HTTP_HOST=0.0.0.0 \
    STREAMLABEL_HTTP_PORT=9100
USER 10001
WORKDIR /var/lib/streamlabel

# Fetches and prepares the bundled model, so that it needs no network later, and proves that the
# image works.
RUN streamlabel classify --model bundled "It works, and I like it."

VOLUME /var/lib/streamlabel
EXPOSE 9100
STOPSIGNAL SIGTERM

# Liveness, for platforms that restart what is unhealthy: a broker that is away turns /readyz red,
# and a restart would not bring it back.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=4 \
    CMD python -c "import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=4)" \
        "http://127.0.0.1:${STREAMLABEL_HTTP_PORT}/livez"

ENTRYPOINT ["streamlabel"]
CMD ["run"]
