# The jobs (`gatewatch jobs`) and the set-up of InfluxDB, without any deep-learning framework.
FROM python:3.11-slim-bookworm AS dependencies
WORKDIR /src
COPY requirements/jobs.txt requirements/
RUN python -m venv /opt/python \
    && /opt/python/bin/python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes \
        --only-binary :all: -r requirements/jobs.txt

FROM dependencies AS application
COPY . .
RUN /opt/python/bin/python -m pip install --no-cache-dir --disable-pip-version-check --no-index --no-deps \
        --no-build-isolation --target /opt/gatewatch .

FROM python:3.11-slim-bookworm
# A user without a name, a home or a shell. Grafana's user is in the group 0 too, and reads its token by that.
RUN install -d -o 10001 -g 0 -m 0750 /var/lib/gatewatch /tokens /tokens/collector /tokens/grafana /tokens/jobs
COPY --from=dependencies /opt/python /opt/python
COPY --from=application /opt/gatewatch /opt/gatewatch
ENV PATH=/opt/gatewatch/bin:/opt/python/bin:$PATH \
    PYTHONPATH=/opt/gatewatch \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GATEWATCH_STATE=/var/lib/gatewatch \
    MPLCONFIGDIR=/tmp
USER 10001:0
WORKDIR /var/lib/gatewatch
ENTRYPOINT ["gatewatch"]
CMD ["jobs", "--verbose"]
HEALTHCHECK --interval=20s --timeout=15s --start-period=60s --retries=3 CMD ["python", "-m", "gatewatch.jobs.stack.health_check"]
