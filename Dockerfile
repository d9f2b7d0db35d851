# Images of distill-operator, all from uv.lock: the same versions as on a developer's machine.
#
#   docker build --target operator    .   the operator and distillctl: no torch
#   docker build --target runtime     .   teacher and student on GPUs: vLLM and DeepSpeed for CUDA
#   docker build --target runtime-cpu .   the same on processors
#
# All run as user 65532 with a read-only root file system; /tmp and the folders of the environment variables below must
# be writable volumes.
FROM docker.io/library/python:3.11-slim-bookworm AS base
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/venv/bin:$PATH

FROM base AS builder
ENV UV_PROJECT_ENVIRONMENT=/opt/venv UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_NO_CACHE=1 \
    UV_SYSTEM_CERTS=1
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check uv==0.13.9
WORKDIR /src

# The project's own code, the last layer of each image: a change of it neither installs packages again nor moves gigabytes
# of them through registries. The two environments are made alike and laid over each other.
FROM builder AS project
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
COPY runtime runtime
RUN /opt/uv/bin/uv venv --quiet /opt/venv && /opt/uv/bin/uv pip install --python /opt/venv --no-deps .

FROM builder AS locked
COPY pyproject.toml uv.lock ./

FROM locked AS operator-packages
RUN /opt/uv/bin/uv sync --frozen --no-install-project --no-default-groups --extra operator

FROM locked AS runtime-cpu-packages
RUN /opt/uv/bin/uv sync --frozen --no-install-project --no-default-groups --extra cpu

FROM locked AS runtime-packages
RUN /opt/uv/bin/uv sync --frozen --no-install-project --no-default-groups --extra gpu

FROM base AS nonroot
RUN groupadd --gid 65532 nonroot && useradd --uid 65532 --gid 65532 --home-dir /home/nonroot --create-home nonroot
WORKDIR /home/nonroot
USER 65532:65532

FROM nonroot AS operator
COPY --from=operator-packages /opt/venv /opt/venv
COPY --from=project /opt/venv /opt/venv
# Another entrypoint, distillctl, is there for people: `docker run --entrypoint distillctl …`.
ENTRYPOINT ["python", "-m", "distill_operator"]
CMD ["--configuration", "/etc/distill-operator/configuration.yaml"]

FROM nonroot AS runtime-cpu
# vLLM's processor kernels are linked with libnuma.
USER root
RUN apt-get update && apt-get install --yes --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
USER 65532:65532
ENV HOME=/tmp DISTILL_STATE_DIR=/tmp/state DISTILL_CACHE_DIR=/tmp/cache DISTILL_LOG_FORMAT=json
COPY --from=runtime-cpu-packages /opt/venv /opt/venv
COPY --from=project /opt/venv /opt/venv
ENTRYPOINT ["python", "-m", "distill_runtime.supervisor"]

FROM nonroot AS runtime
# Triton compiles its launchers with the C compiler when a kernel is used for the first time.
USER root
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
USER 65532:65532
ENV HOME=/tmp DISTILL_STATE_DIR=/tmp/state DISTILL_CACHE_DIR=/tmp/cache DISTILL_LOG_FORMAT=json
COPY --from=runtime-packages /opt/venv /opt/venv
COPY --from=project /opt/venv /opt/venv
ENTRYPOINT ["python", "-m", "distill_runtime.supervisor"]
