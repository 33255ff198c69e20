# An image of `senthy serve --backend onnx`: without torch, and without the model, which is mounted. See docs/serve.md.
# `python benchmarks/image.py EXPORT` runs these steps in an empty folder, where there is no Docker.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY sentiment_hybrid sentiment_hybrid
RUN python -m venv /opt/senthy
# The dependencies of these three are for training and downloading.
RUN /opt/senthy/bin/pip install --no-cache-dir --no-deps . tokenizers onnxruntime
RUN /opt/senthy/bin/pip install --no-cache-dir fastapi uvicorn httptools uvloop prometheus-client numpy ftfy pydantic pyyaml platformdirs typer rich
RUN /opt/senthy/bin/pip uninstall --yes pip

FROM python:3.13-slim
RUN useradd --system --uid 10001 senthy
COPY --from=build /opt/senthy /opt/senthy
ENV PATH=/opt/senthy/bin:$PATH SENTHY_HOME=/tmp/senthy
USER senthy
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --start-period=30s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready', timeout=5)"]
# The folder of models is mounted, not one model, so that a new one replaces it under the running service.
ENTRYPOINT ["senthy", "serve", "--backend", "onnx", "--set", "paths.models_dir=/models", "--host", "0.0.0.0"]
