# Gateway, webhook sender and `disp prepare`: everything but the engine, so no torch. The reader of
# uploads is the same with Pillow: --build-arg EXTRAS="[ingest]".
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
ARG EXTRAS=""
WORKDIR /src
COPY . .
RUN python -m venv /opt/disp && /opt/disp/bin/pip install ".${EXTRAS}"

FROM python:3.11-slim
ENV PATH=/opt/disp/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
RUN useradd --no-log-init --uid 10001 --home-dir /tmp disp \
    && mkdir /spool /data && chown disp:disp /spool /data
COPY --from=build /opt/disp /opt/disp
USER 10001:10001
EXPOSE 8000
CMD ["uvicorn", "--factory", "api.app:create_app", "--host", "0.0.0.0", "--port", "8000"]
