# A worker with the engine. The default torch wheel carries CUDA; the host needs a driver and its
# container toolkit. For an image without CUDA: --build-arg PIP_OPTIONS="--index-url …/cpu".
FROM python:3.11-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
ARG PIP_OPTIONS=""
WORKDIR /src
# torch first, in a layer of its own: it is most of the image and changes least.
# hadolint ignore=SC2086
RUN python -m venv /opt/disp && /opt/disp/bin/pip install ${PIP_OPTIONS} torch==2.13.0
COPY . .
RUN /opt/disp/bin/pip install '.[engine]'

FROM python:3.11-slim
ENV PATH=/opt/disp/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 \
    DISP_WORK_DIR=/data/work
RUN useradd --no-log-init --uid 10001 --home-dir /tmp disp \
    && mkdir /data && chown disp:disp /data
COPY --from=build /opt/disp /opt/disp
USER 10001:10001
EXPOSE 9100
CMD ["disp", "worker"]
