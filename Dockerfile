# Two images: `docker build --target api` (no torch) and `docker build --target worker`.
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS base
ENV PATH=/srv/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LETHE_ENVIRONMENT=production \
    LETHE_HOME=/var/lib/lethe
# A fixed id, so that API and worker may write to one volume.
RUN useradd --system --uid 10001 --home-dir /var/lib/lethe --create-home lethe
WORKDIR /srv/lethe

FROM base AS api-build
RUN python -m venv /srv/venv
COPY requirements-api.lock ./
RUN pip install --no-deps --require-hashes -r requirements-api.lock
COPY pyproject.toml README.md LICENSE alembic.ini ./
COPY migrations migrations
COPY service service
# Editable: the migrations lie beside the package, as in a checkout.
RUN pip install --no-deps --no-build-isolation --editable . && pip check

FROM base AS worker-build
# Empty: the index's build (CUDA on x86-64). A CPU image: --build-arg TORCH_INDEX=<an index of CPU builds>.
ARG TORCH_INDEX=""
RUN python -m venv /srv/venv
COPY pyproject.toml ./
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)"
COPY requirements.lock ./
RUN pip install --no-deps --require-hashes -r requirements.lock
COPY README.md LICENSE alembic.ini ./
COPY migrations migrations
COPY service service
COPY workers workers
RUN pip install --no-deps --no-build-isolation --editable . && pip check

FROM base AS api
COPY --from=api-build /srv /srv
USER lethe
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["uvicorn", "--factory", "service.main:create_app", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS worker
ENV OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
COPY --from=worker-build /srv /srv
USER lethe
HEALTHCHECK --interval=60s --timeout=30s --start-period=60s \
    CMD ["sh", "-c", "celery -A workers.app:celery inspect ping --destination \"celery@$(hostname)\""]
CMD ["celery", "-A", "workers.app:celery", "worker", "--concurrency", "1", "--queues", "cpu,gpu,notify"]
