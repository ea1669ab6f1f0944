#!/usr/bin/env bash
# Installs the package, trains an SRN-70 GAN, evaluates it and writes samples. Needs Python 3.10 or newer.
# VENV=DIR: virtual environment (default .venv). PYTHON=python3.12: interpreter that creates it.
# RUN=DIR: folder of the run (default runs/quickstart).
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
run=${RUN:-runs/quickstart}
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || "${PYTHON:-python3}" -m venv --clear "$venv"
echo "installing into $venv (PyTorch is a large download the first time)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable .
precision=fp32
if grep -qsE 'amx_bf16|avx512_bf16' /proc/cpuinfo; then precision=bf16; fi
echo "training in $precision, the fastest precision on this processor"
"$venv/bin/gan-train" --config shapes_srn70 --set "train.precision=$precision" --run "$run" --resume
"$venv/bin/gan-eval" --run "$run" --metrics fid,is,nd
rm -rf "$run/samples/final"
"$venv/bin/gan-sample" --run "$run" --num 80 --out "$run/samples/final"
report=$(ls -td "$run"/reports/*/ | head -n 1)
echo
echo "samples      $run/samples/final.png   (during training: $run/samples/)"
echo "report       ${report}report.txt   (with its protocol: report.json)   curves: ${report}curves.png"
echo "TensorBoard  $venv/bin/tensorboard --logdir $run"
