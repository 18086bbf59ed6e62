#!/bin/sh
# Writes every result of this folder again: sh benchmarks/latency_model/run_all.sh
set -eu
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1
python=${PYTHON:-.venv/bin/python}
for board in rpi3:mlperf_v2.0_rpi3_tflite_ruy orin-agx:mlperf_orin_agx_cpu_tflite_ruy rpi4:mlperf_v2.0_rpi4_tflite_ruy; do
    name=${board%%:*} data=benchmarks/data/${board#*:}.csv
    run() { "$python" benchmarks/latency_model.py --data "$data" --json "$@"; }
    out=benchmarks/latency_model/$name
    run --calibrate 20 --seeds 30 >"$out-latency-n20.json"
    run --calibrate 30 --seeds 30 >"$out-latency-n30.json"
    run --calibrate 20 --seeds 30 --additive-only >"$out-latency-n20-additive.json"
    run --group-by family >"$out-latency-family.json"
    [ "$name" = rpi3 ] && continue
    run --target energy_mJ_per_query --calibrate 20 --seeds 30 >"$out-energy-n20.json"
    run --target energy_mJ_per_query --group-by family >"$out-energy-family.json"
done
