# Image of the server (`retinanet serve`) for exported models on the CPU. The image does not contain torch.
#
#   docker build -t retinanet .
#   docker run --rm -p 8000:8000 --read-only --tmpfs /tmp -v "$PWD/model.onnx:/model/model.onnx:ro" retinanet
#
# Arguments after the image name replace the default arguments, so they must include the model and the host:
#   docker run ... retinanet /model/model.onnx --host 0.0.0.0 --workers 2

FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m venv /opt/retinanet \
    && /opt/retinanet/bin/pip install --no-cache-dir -c constraints.txt '.[serve,onnx,openvino]'

FROM python:3.12-slim
LABEL org.opencontainers.image.title="retinanet" org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin retinanet
COPY --from=build /opt/retinanet /opt/retinanet
ENV PATH=/opt/retinanet/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/tmp/matplotlib
USER 10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["retinanet", "serve"]
CMD ["/model/model.onnx", "--host", "0.0.0.0"]
