# The daemon on the GPU of a Jetson with JetPack 6.1 or 6.2, built on such a board from the
# repository's root: docker build -f docker/jetson.Dockerfile -t delen:jetson .
# The base has CUDA 12.6, cuDNN 9 and TensorRT, and the Python of JetPack 6. Both stages need it: the
# wheel of ONNX Runtime is built for them.
ARG BASE=nvcr.io/nvidia/l4t-jetpack:r36.4.0
FROM ${BASE} AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv
WORKDIR /src
COPY setup.py pyproject.toml MANIFEST.in README.md LICENSE ./
COPY delen delen
COPY api api
COPY policies policies
COPY power power
COPY multiexit_models multiexit_models
ARG INDEX=https://pypi.jetson-ai-lab.io/jp6/cu126
ARG RUNTIME=onnxruntime-gpu==1.23.0
ARG EXTRAS=jetson,audio
RUN python3 -m venv /opt/delen \
    && /opt/delen/bin/pip install --no-cache-dir --no-deps --index-url "${INDEX}" "${RUNTIME}" \
    && /opt/delen/bin/pip install --no-cache-dir ".[${EXTRAS}]" \
    && /opt/delen/bin/pip uninstall -y pip setuptools

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 delen \
    && useradd --uid 10001 --gid delen --no-create-home --home-dir /var/lib/delen \
        --groups video delen \
    && install -d -o delen -g delen /run/delen /var/lib/delen
COPY --from=build /opt/delen /opt/delen
# The container's network decides who reaches the port. Without a token, what changes the daemon is
# refused there all the same.
ENV PATH=/opt/delen/bin:$PATH DELEN_SERVER__HOST=0.0.0.0 DELEN_SERVER__INSECURE=true \
    DELEN_SERVER__SOCKET=/run/delen/delen.sock DELEN_STATE__PATH=/var/lib/delen
USER 10001:10001
VOLUME /var/lib/delen
EXPOSE 8000
HEALTHCHECK --start-period=60s --timeout=5s CMD ["python3", "-c", \
    "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["delen-daemon"]
