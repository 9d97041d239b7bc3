#!/usr/bin/env bash
# dvc 3.67.1
#
# `dvc exp run -S KEY=VALUE` stages the changed params.yaml in Git's index once a first stage has ended. Killed after that, it leaves
# the file staged. Who then puts the file back as it was committed (in an editor, or by a program that writes it) has three
# versions of it, and the next `dvc exp run` ends with "unexpected error - Stash apply resulted in merge conflicts" and
# exit status 255, before any stage. `git reset` mends it; the message names neither the file nor a way out.
#
# Expected: the leftovers of an experiment of DVC's own are set aside, or named with what to do.
#
# Why it matters here: `make experiment` and `make ablate` promise that a killed command can be given again. They put
# params.yaml back to the last commit first, which is just this case, so they take the file out of the index as well.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet "dvc==3.67.1"
export DVC_NO_ANALYTICS=1
dvc="$work/venv/bin/dvc"
mkdir project && cd project
git init --quiet && git config user.name someone && git config user.email someone@example.org
"$dvc" init --quiet
echo "seed: 0" > params.yaml
cat > dvc.yaml <<'YAML'
stages:
  first:
    cmd: cp params.yaml first.txt
    params: [seed]
    outs: [first.txt]
  work:
    cmd: touch begun && sleep "$SECONDS_OF_WORK" && cp params.yaml out.txt
    deps: [first.txt]
    outs: [out.txt]
YAML
printf 'begun\n/out.txt\n/first.txt\n' > .gitignore
git add --all && git commit --quiet --message start

SECONDS_OF_WORK=600 setsid "$dvc" exp run --quiet -S seed=1 > ../first.log 2>&1 &
run=$!
for _ in $(seq 600); do [ -e begun ] && break; sleep 0.1; done
kill -KILL -- "-$run"
wait "$run" 2>/dev/null || true
echo "after the kill: $(git status --short params.yaml)"
git show HEAD:params.yaml > params.yaml
echo "put back:       $(git status --short params.yaml)"

status=0
SECONDS_OF_WORK=0 "$dvc" exp run -S seed=1 > ../second.log 2>&1 || status=$?
echo "given again:    exit status $status: $(grep -o 'unexpected error.*index' ../second.log || true)"
git reset --quiet
after=0
SECONDS_OF_WORK=0 "$dvc" exp run --quiet -S seed=1 > ../third.log 2>&1 || after=$?
echo "after a reset:  exit status $after"
grep -q "Stash apply resulted in merge conflicts" ../second.log && [ "$status" -ne 0 ] && [ "$after" -eq 0 ] ||
  { echo "It is otherwise now"; exit 1; }
echo "As described"
