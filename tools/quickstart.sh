#!/usr/bin/env bash
# From a clone to a trained GAN, its scores and its images: installs, trains, evaluates, draws samples. Opens nothing.
#   bash tools/quickstart.sh                                   configuration quickstart, in runs/quickstart
#   bash tools/quickstart.sh cifar10_compact                   another one (also CONFIG=NAME), in runs/cifar10_compact
#   bash tools/quickstart.sh quickstart --set train.seed=1     further arguments go to gan-train
# RUN=DIR: folder of the run. VENV=DIR: virtual environment (default .venv). PYTHON=python3.12: interpreter that creates it.
# Interrupted (Ctrl-C) or called again, it continues where it was.
set -euo pipefail
cd "$(dirname "$0")/.."

# Seconds of each phase, measured on two idle cores of an AMD EPYC with bf16 instructions; the installation with packages
# in pip's cache; float32 computed from a hundred steps.
install_seconds=75 bf16_seconds=215 fp32_seconds=315 evaluate_seconds=25 sample_seconds=6

config=${CONFIG:-quickstart}
case "${1:-}" in "" | -*) ;; *) config=$1 && shift ;; esac
name=$(basename "$config" .yaml)
run=${RUN:-runs/$name}
venv=${VENV:-.venv}
precision=fp32 train_seconds=$fp32_seconds
if grep -qsE 'amx_bf16|avx512_bf16' /proc/cpuinfo; then precision=bf16 train_seconds=$bf16_seconds; fi

clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }
# phase NUMBER TEXT SECONDS-OF-THIS SECONDS-OF-ALL-LEFT: times are known for the quickstart only.
phase() {
    local times=""
    if [ "$name" = quickstart ]; then times=" (about $(clock "$3"); $(clock "$4") to the end)"; fi
    printf '\n[%s/4] %s%s\n' "$1" "$2" "$times"
}
stopped() {
    printf '\nstopped; the same command continues from here\n' >&2
    exit 130
}
trap stopped INT TERM

left=$((install_seconds + train_seconds + evaluate_seconds + sample_seconds))
stamp=$venv/installed-by-quickstart
if [ "$stamp" -nt setup.cfg ] && [ "$stamp" -nt pyproject.toml ] && "$venv/bin/gan-train" --help >/dev/null 2>&1; then
    phase 1 "installed already, in $venv" 0 $((left - install_seconds))
else
    phase 1 "installing into $venv; the first time PyTorch is downloaded, several GB, which the times leave out" $install_seconds $left
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "${PYTHON:-python3}" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable .
    touch "$stamp"
fi
left=$((left - install_seconds))

phase 2 "training $name in $precision; log and checkpoints in $run" $train_seconds $left
"$venv/bin/gan-train" --config "$config" --set "train.precision=$precision" --run "$run" --resume "$@" || {
    status=$?
    if [ $status = 130 ] || [ $status = 143 ]; then stopped; fi
    printf '\nnot trained; to train in another folder: RUN=runs/another bash tools/quickstart.sh %s\n' "$config" >&2
    exit $status
}
left=$((left - train_seconds))

checkpoint=$(ls "$run"/checkpoints/step-*.pt | tail -n 1)
step=$(basename "$checkpoint" .pt)
# The page is the last file of a report.
report() { ls -t "$run/reports/${step#step-}"*/report.html 2>/dev/null | head -n 1; }
if [ -n "$(report)" ] && [ "$(report)" -nt "$checkpoint" ]; then
    phase 3 "evaluated already" 0 $((left - evaluate_seconds))
else
    phase 3 "evaluating: scores of its images, by the metrics of $name" $evaluate_seconds $left
    "$venv/bin/gan-eval" --run "$run"
fi

picture=$run/samples/final.png
if [ "$picture" -nt "$checkpoint" ]; then
    phase 4 "drawn already" 0 0
else
    phase 4 "drawing 80 images" $sample_seconds $sample_seconds
    "$venv/bin/gan-sample" --run "$run" --num 80 --grid-only --out "$run/samples/final"
fi

next="$venv/bin/gan-train --config cifar10_compact"
if [ "$name" != quickstart ]; then next="$venv/bin/tensorboard --logdir $run"; fi
printf '\nall of it took %s\n\n' "$(clock $SECONDS)"
echo "picture  $picture"
echo "report   $(report)"
echo "next     $next"
