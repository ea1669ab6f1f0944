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
# in pip's cache; float32 computed from a hundred steps; 30 of the evaluation's, processor time, train its classifier once.
install_seconds=75 bf16_seconds=215 fp32_seconds=315 evaluate_seconds=40 sample_seconds=6

config=${CONFIG:-quickstart}
case "${1:-}" in "" | -*) ;; *) config=$1 && shift ;; esac
name=$(basename "$config" .yaml)
run=${RUN:-runs/$name}
venv=${VENV:-.venv}
precision=fp32 train_seconds=$fp32_seconds
if grep -qsE 'amx_bf16|avx512_bf16' /proc/cpuinfo; then precision=bf16 train_seconds=$bf16_seconds; fi

clock() { printf '%d:%02d' $(($1 / 60)) $(($1 % 60)); }
# phase NUMBER TEXT [SECONDS-OF-THIS SECONDS-OF-ALL-LEFT]: times are known for the quickstart only.
phase() {
    local times=""
    if [ $# -gt 2 ] && [ "$name" = quickstart ]; then times=" (about $(clock "$3"); $(clock "$4") to the end)"; fi
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
    phase 1 "installed already, in $venv"
else
    phase 1 "installing into $venv; the first time PyTorch is downloaded, several GB, which the times leave out" $install_seconds $left
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "${PYTHON:-python3}" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable .
    touch "$stamp"
fi
left=$((left - install_seconds))

settings=$("$venv/bin/gan-train" --config "$config" "$@" --print-config 2>/dev/null || true)
# setting NAME: value of train.NAME.
setting() { awk -v name="$1:" '/^[a-z]/ { train = $1 == "train:" } train && $1 == name { print $2 }' <<<"$settings"; }
newest=$(ls "$run"/checkpoints/step-*.pt 2>/dev/null | tail -n 1 || true)
began=${newest##*step-} began=$((10#0${began%.pt})) steps=$(setting steps)
if [ "$began" -ge "${steps:-1}" ]; then
    phase 2 "trained already, in $run"
else
    remaining=$((train_seconds * (${steps:-1} - began) / ${steps:-1}))
    phase 2 "training $name in $precision; log and checkpoints in $run" $remaining $((left - train_seconds + remaining))
    every=$(setting sample_every)
    if [ "${every:-0}" -gt 0 ]; then echo "      pictures of its images every $every steps in $run/samples"; fi
fi
"$venv/bin/gan-train" --config "$config" --set "train.precision=$precision" --run "$run" --resume "$@" || {
    status=$?
    if [ $status = 130 ] || [ $status = 143 ]; then stopped; fi
    if [ -n "$newest" ]; then
        printf '\nnot trained; to train in another folder: RUN=runs/another bash tools/quickstart.sh %s\n' "$config" >&2
    fi
    exit $status
}
left=$((left - train_seconds))

checkpoint=$(ls "$run"/checkpoints/step-*.pt | tail -n 1)
step=$(basename "$checkpoint" .pt)
# The page is the last file of a report.
report() { ls -t "$run/reports/${step#step-}"*/report.html 2>/dev/null | head -n 1; }
if [ -n "$(report)" ] && [ "$(report)" -nt "$checkpoint" ]; then
    phase 3 "evaluated already"
else
    phase 3 "evaluating: scores of its images, by the metrics of $name" $evaluate_seconds $left
    "$venv/bin/gan-eval" --run "$run"
fi

picture=$run/samples/final.png
if [ "$picture" -nt "$checkpoint" ]; then
    phase 4 "drawn already"
else
    phase 4 "drawing 80 images" $sample_seconds $sample_seconds
    "$venv/bin/gan-sample" --run "$run" --num 80 --grid-only --out "$run/samples/final"
fi

# link PATH: the path, in a terminal as a link that opens by a click.
clickable=false
if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then clickable=true; fi
link() {
    case $1 in /*) place=$1 ;; *) place=$PWD/$1 ;; esac
    if $clickable; then
        printf '\e]8;;file://%s\e\\%s\e]8;;\e\\\n' "${place// /%20}" "$1"
    else
        echo "$1"
    fi
}

printf '\nall of it took %s\n' "$(clock $SECONDS)"
printf 'curves: %s\n' "$venv/bin/tensorboard --logdir $run"
if [ "$name" = quickstart ]; then
    echo "photographs: $venv/bin/gan-train --config cifar10_compact (downloads 170 MB, then half an hour or more)"
fi
echo
echo "picture  $(link "$picture")"
echo "report   $(link "$(report)")"
echo "next     $venv/bin/gan-sample --run $run --interpolate 10"
