#!/usr/bin/env bash
# dvc 3.67.1
#
# At the end of every stage `dvc repro` writes dvc.lock anew, all stages of it: it opens the file itself, which empties it, and
# lets the YAML writer stream into it, for seconds where the file is large. Killed meanwhile (out of memory, a batch system's
# limit, power), it leaves an empty file or the beginning of one. Every command of DVC then refuses it, with "validation failed", naming a key
# that somebody should have provided; what to do is not said, and what the earlier stages had recorded in it is lost with it.
#
# Expected: the new file is written beside the old one and renamed, as Git does with its index and DVC with objects of its cache.
#
# Why it matters here: runs are promised to go on after any kill, and updates of live projects run unattended. One of 100 killed at
# random moments ended so. Before each run a dvc.lock that DVC would refuse becomes that of the last commit again (flows/before.py).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet "dvc==3.67.1"
export DVC_NO_ANALYTICS=1
dvc="$work/venv/bin/dvc"
mkdir project && cd project
"$dvc" init --quiet --no-scm
python3 -c 'print("seed: 0\nmany:"); [print(f"- {i}") for i in range(20000)]' > params.yaml
cat > dvc.yaml <<'YAML'
stages:
  first:
    cmd: echo first > first.txt
    outs: [first.txt]
  second:
    cmd: echo second > second.txt
    deps: [first.txt]
    params: [seed, many]
    outs: [second.txt]
YAML
"$dvc" repro --quiet
whole=$(stat -c %s dvc.lock)
echo "dvc.lock has $whole bytes, of 2 stages"

sed -i 's/^seed: .*/seed: 1/' params.yaml
"$dvc" repro --quiet > ../killed.log 2>&1 &
run=$!
while kill -0 "$run" 2>/dev/null && [ "$(stat -c %s dvc.lock)" -ge "$whole" ]; do :; done
sleep 0.1
kill -KILL "$run" 2>/dev/null || true
wait "$run" 2>/dev/null || true
left=$(stat -c %s dvc.lock)
echo "killed while it was written, it has $left"

status=0
"$dvc" status > ../status.log 2>&1 || status=$?
echo "dvc status: exit status $status: $(grep -o "'./dvc.lock' .*" ../status.log | head -1)"
[ "$left" -lt "$whole" ] && [ "$status" -ne 0 ] && grep -q "dvc.lock' validation failed\|dvc.lock' is invalid" ../status.log
