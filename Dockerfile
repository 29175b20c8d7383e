# The whole reproduction in a container. On a CPU:
#   docker build --tag alexnet .
#   docker run --init --ipc=host --name alexnet alexnet      # `make repro`; after `docker stop`, `docker start -a` goes on
#   docker cp alexnet:/alexnet/reports .
# On a GPU (CUDA's libraries come with that build of torch):
#   docker build --tag alexnet:cuda --build-arg BASE=nvidia/cuda:12.9.1-base-ubuntu24.04 --build-arg TORCH=cuda .
#   docker run --init --ipc=host --gpus=all --name alexnet alexnet:cuda dvc exp run -S scale=embedded_gpu
ARG BASE=debian:bookworm-slim
FROM ${BASE}

RUN apt-get update \
  && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends git make python3-venv \
  && rm -rf /var/lib/apt/lists/* \
  && useradd --create-home alexnet \
  && install --directory --owner=alexnet --group=alexnet /alexnet
USER alexnet
WORKDIR /alexnet
ENV PATH=/alexnet/.venv/bin:${PATH} PIP_NO_CACHE_DIR=1
# `dvc exp run` commits, and wants a name to do so.
RUN git config --global user.name alexnet && git config --global user.email alexnet@localhost

# What is installed changes seldom, and is a layer of its own.
ARG TORCH=cpu
COPY --chown=alexnet:alexnet constraints.txt ./
RUN python3 -m venv .venv \
  && if [ "${TORCH}" = cpu ]; then \
    pip install --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' constraints.txt)"; fi
COPY --chown=alexnet:alexnet LICENSE Makefile README.md pyproject.toml ./
COPY --chown=alexnet:alexnet pipeline/__init__.py pipeline/
RUN make .venv/.installed

# .git comes along: DVC needs it, and a report names its revision. `touch`: what is installed is newer than these files.
COPY --chown=alexnet:alexnet . ./
RUN touch .venv/.installed
CMD ["make", "repro"]
