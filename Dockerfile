# Hearback on a GPU box: docs/guide/where_it_runs.md says how to build and run it, and what was tried.
#
# The base is Python's image, not one with CUDA: torch's wheels bring the CUDA libraries that they
# need, and the NVIDIA container toolkit brings the host's driver. Another base needs Python 3.11 or
# later, with venv.
ARG BASE=python:3.11.13-slim-bookworm

# hadolint ignore=DL3006  # the tag is in BASE
FROM ${BASE} AS build
# More arguments of pip, such as --extra-index-url=https://download.pytorch.org/whl/cpu
ARG PIP_ARGUMENTS=
WORKDIR /source
COPY requirements.txt ./
COPY requirements/container.txt requirements/
# The packages come first: they change less often than the code, and take minutes.
RUN python3 -m venv /opt/hearback \
    && /opt/hearback/bin/python -m pip install --no-cache-dir ${PIP_ARGUMENTS} \
        --requirement requirements/container.txt
COPY . .
RUN /opt/hearback/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation .

# hadolint ignore=DL3006
FROM ${BASE}
LABEL org.opencontainers.image.title="Hearback" \
    org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/hearback /opt/hearback
# The steps read and write data/, assets/, store/, tts_data/ and runs/ in the working folder. Any user
# may run the image (--user), so files that can be computed again are kept where all may write.
RUN useradd --create-home --uid 1000 hearback \
    && mkdir /work \
    && chown hearback:hearback /work
ENV PATH=/opt/hearback/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HEARBACK_CACHE=/tmp/hearback \
    NUMBA_CACHE_DIR=/tmp/numba \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /work
VOLUME /work
ENTRYPOINT ["hearback"]
CMD ["--help"]
