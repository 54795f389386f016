# docker build -t joulefront . && docker run --rm -v joulefront-runs:/home/joulefront/runs joulefront
# GPUs: --gpus all. RAPL: --device /dev/cpu --volume /sys/class/powercap:/sys/class/powercap:ro; without either the CPU is estimated.
FROM python:3.12-slim

# OpenMP, which LightGBM and torch load.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*

WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY search search
COPY spaces spaces
COPY studies studies
RUN pip install --no-cache-dir . && rm -rf /source

RUN useradd --create-home joulefront && mkdir /home/joulefront/runs && chown joulefront /home/joulefront/runs
USER joulefront
WORKDIR /home/joulefront

ENTRYPOINT ["joulefront"]
CMD ["run", "digits"]
