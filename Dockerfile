# The image of operator and movers. tests/cluster/images.py builds the same without a container engine: it reads ENV,
# USER, WORKDIR and ENTRYPOINT from the last stage here, and both install what image/packages.txt lists.
FROM debian:trixie-slim AS build
RUN apt-get update && apt-get install --yes --no-install-recommends python3-pip
WORKDIR /src
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY operator operator
RUN python3 -m pip install --no-cache-dir --target /opt/coeval --constraint requirements.lock . && rm -rf /opt/coeval/bin

FROM debian:trixie-slim
COPY image/packages.txt /tmp/packages.txt
RUN apt-get update \
    && grep -v '^#' /tmp/packages.txt | xargs apt-get install --yes --no-install-recommends \
    && rm -rf /var/lib/apt/lists/* /tmp/packages.txt
COPY --from=build /opt/coeval /opt/coeval
COPY --chmod=755 image/coeval /usr/local/bin/coeval
ENV PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin LANG=C.UTF-8
ENV PYTHONPATH=/opt/coeval PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 107:107
WORKDIR /
ENTRYPOINT ["coeval"]
