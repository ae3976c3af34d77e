#!/usr/bin/env bash
# Everything that is to be measured on a GPU, in order of value, in pieces of at most nine minutes.
#
#   benchmarks/gpu_all.sh                       all pieces that are not done yet
#   benchmarks/gpu_all.sh --budget 500          starts no piece after that many seconds, and cuts one off there
#   benchmarks/gpu_all.sh --limit 300           at most that many seconds a piece (540)
#   benchmarks/gpu_all.sh check model_b2        these pieces only
#   benchmarks/gpu_all.sh --toy                 a rehearsal at toy size, also without a GPU; some minutes on a CPU
#   benchmarks/gpu_all.sh --list                the pieces
#
# Results lie in gpu_results/ (--out FOLDER): what a piece printed in PIECE.log, PIECE.done when it ended, measurements line
# by line as they come in *.jsonl. Calling it again goes on where it stopped, within a piece too. SUMMARY.txt says
# what to read first. PYTHON names the interpreter (default: .venv/bin/python, else python3).
set -uo pipefail
cd "$(dirname "$0")/.."

out=${out:-gpu_results} toy=${toy:-} # a piece's own shell gets these from its caller
budget=100000 limit=540 chosen=()
PIECES=(check model_b2 training_b2 profile ops_bf16 tune models ops_fp32 compiled tests)

piece_check() { # do the kernels compute on this GPU what they compute in the interpreter?
    python -m van info --ops && gpu_tests tests/ops/test_ops_gpu.py tests/ops/test_tune.py
}
piece_model_b2() { models --models van_b2 --modes inference --batches 256 --kinds "${KINDS[@]}"; }
piece_training_b2() { models --models van_b2 --modes training --kinds "${KINDS[@]}"; }
piece_profile() { python benchmarks/gpu_profile.py --out "$out" $toy; }
piece_ops_bf16() { operators --dtypes bf16; }
piece_tune() { # are other blocks faster than the table's? what is found is used by everything after it
    if [ -n "$toy" ]; then python -m pytest -q -p no:cacheprovider tests/ops/test_tune.py; else python -m van tune --models van_b2 van_b0; fi
}
piece_models() { models --models van_b0 van_b1 van_b3 light_ham_van_b2 --kinds "${KINDS[@]}"; }
piece_ops_fp32() { operators --dtypes fp32; }
piece_compiled() { models --neighbours; } # max-autotune, CUDA graphs, layouts, neighbours: what is left of gpu_model.py
piece_tests() { gpu_tests; }

KINDS=(official "official, compile" ours "ours, compile")

python() { "$PYTHON" "$@"; }
operators() { python benchmarks/gpu_ops.py --rows "$out/ops.jsonl" --picture "$out/gpu_ops.png" $toy "$@"; }
models() {
    local neighbours=--no-neighbours
    if [ "${1-}" = --neighbours ]; then neighbours="" && shift; fi
    python benchmarks/gpu_model.py --rows "$out/models.jsonl" --picture "$out/gpu_model.png" $neighbours $toy "$@"
}
gpu_tests() { # the tests that need a GPU; a rehearsal only collects them
    if [ -n "$toy" ]; then set -- --collect-only -q "$@"; fi
    python -m pytest -q -p no:cacheprovider -m gpu "$@"
}

main() {
    while [ $# -gt 0 ]; do
        case "$1" in
            --toy) toy=--quick ;;
            --list) printf '%s\n' "${PIECES[@]}" && exit 0 ;;
            --out) out=${2:?--out needs a folder} && shift ;;
            --budget) budget=${2:?--budget needs seconds} && shift ;;
            --limit) limit=${2:?--limit needs seconds} && shift ;;
            -*) fail "unknown option $1; see the head of benchmarks/gpu_all.sh" ;;
            *) declare -F "piece_$1" >/dev/null || fail "unknown piece $1; known: ${PIECES[*]}" ; chosen+=("$1") ;;
        esac
        shift
    done
    [[ "$budget$limit" =~ ^[0-9]+$ ]] || fail "--budget is $budget, --limit is $limit; expected whole seconds"
    mkdir -p "$out" || exit 2
    export PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)} out toy
    export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
    SECONDS=0
    for piece in "${chosen[@]:-${PIECES[@]}}"; do run "$piece"; done
    "$PYTHON" benchmarks/gpu_summary.py "$out" | tee "$out/SUMMARY.txt"
    cp docs/results.json "$out/results.json"
}

# A piece in a shell of its own, which `timeout` can end with all that it started.
run() {
    local left=$((budget - SECONDS)) code
    [ -e "$out/$1.done" ] && echo "=== $1: done before" && return
    [ "$left" -lt 20 ] && echo "=== $1: not started, the budget is spent" && return
    echo "=== $1 (at ${SECONDS} s)"
    timeout --kill-after=10 "$((left < limit ? left : limit))" bash "$0" --piece "$1" 2>&1 | tee "$out/$1.log"
    code=${PIPESTATUS[0]}
    case "$code" in
        124 | 137) echo "=== $1: cut off; the next call goes on with it" | tee -a "$out/$1.log" ;;
        *) echo "exit code $code" >"$out/$1.done" && echo "=== $1: exit code $code, at ${SECONDS} s" ;;
    esac
}

fail() { echo "gpu_all.sh: $1" >&2 && exit 2; }

if [ "${1-}" = --piece ]; then "piece_$2"; else main "$@"; fi
