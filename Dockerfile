# A server of one bundle: docs/shipping.md, section Container, says how it is built and run.
#
# torch comes by the pin of constraints.txt. Where your index has several builds of torch, say which by pip's own
# variables: --build-arg PIP_INDEX_URL=... or --build-arg PIP_EXTRA_INDEX_URL=... Neither is in the image afterwards.

FROM python:3.11-slim AS build
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
WORKDIR /build
RUN python -m venv /opt/isthmus
COPY constraints.txt ./
RUN /opt/isthmus/bin/pip install --no-cache-dir -c constraints.txt torch==2.13.0
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN /opt/isthmus/bin/pip install --no-cache-dir -c constraints.txt '.[serve,trees,numbers]'

FROM python:3.11-slim
# What LightGBM links, for bundles with a forest.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/isthmus /opt/isthmus
# All that is ever written lies below /tmp: the root may be read-only.
ENV PATH=/opt/isthmus/bin:$PATH \
    HOME=/tmp \
    TMPDIR=/tmp \
    ISTHMUS_CACHE=/tmp/isthmus \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, so that an orchestrator sees that it is not root.
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["isthmus"]
CMD ["serve", "/bundle", "--host", "0.0.0.0", "--port", "8080"]
