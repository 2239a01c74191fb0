# syntax=docker/dockerfile:1
# A CPU image: an index behind HTTP, or any other command of clrelkt.

FROM debian:bookworm-slim AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/clrelkt
WORKDIR /src
# What changes seldom first, so that a change of the source installs nothing anew.
COPY constraints.txt ./
RUN /opt/clrelkt/bin/pip install --no-cache-dir --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /opt/clrelkt/bin/pip install --no-cache-dir --constraint constraints.txt '.[index,serve,milvus]'

FROM debian:bookworm-slim
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 python3 \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/clrelkt /opt/clrelkt
RUN useradd --create-home --uid 10001 clrelkt \
 && install --directory --owner=clrelkt /data
ENV PATH=/opt/clrelkt/bin:$PATH \
    CLRELKT_DATA=/data/corpora \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
# Only a server has a port to ask; the other commands end by themselves.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["clrelkt"]
CMD ["--help"]
