# Two images without privileges: `serve` answers with a finished model, `train` (the default) does everything.
#
#   docker build --target serve --tag graftwork-serve .
#   docker run --rm --read-only --tmpfs /tmp --publish 127.0.0.1:8000:8000 --volume "$PWD/runs/NAME:/run-folder:ro" graftwork-serve
#
#   docker build --tag graftwork .
#   docker run --rm --volume "$PWD:/work" --user "$(id -u):$(id -g)" graftwork fit table.csv --targets price --out runs/first
#
# On Linux pip takes builds of torch with CUDA, several gigabytes. For CPUs alone hand in the index of CPU builds, which torch's own
# installation page names:
#   docker build --build-arg TORCH_INDEX=... --tag graftwork .

FROM python:3.12-slim AS base
# HOME: whoever runs it with --user has none.
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 HOME=/home/graftwork GRAFTWORK_CACHE=/home/graftwork/cache
# OpenMP, which LightGBM and torch load.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home graftwork && mkdir /home/graftwork/cache && chmod 1777 /home/graftwork /home/graftwork/cache
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY requirements/lock.txt requirements/
COPY src src

FROM base AS serve
RUN pip install --constraint requirements/lock.txt ".[serve]" && rm -rf /source
USER 10001
WORKDIR /home/graftwork
EXPOSE 8000
HEALTHCHECK --start-period=30s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://localhost:8000/health', timeout=5)"]
# Clients call it localhost; for others: --allowed-hosts, and GRAFTWORK_TOKEN in the environment.
ENTRYPOINT ["graftwork", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/run-folder"]

FROM base AS train
ARG TORCH_INDEX=""
RUN if [ -n "$TORCH_INDEX" ]; then pip install --constraint requirements/lock.txt --index-url "$TORCH_INDEX" torch torchvision; fi \
    && pip install --constraint requirements/lock.txt ".[all]" && rm -rf /source
USER 10001
WORKDIR /work
ENTRYPOINT ["graftwork"]
CMD ["--help"]
