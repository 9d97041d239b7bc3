#!/usr/bin/env bash
# Packages: dvc 3.67.1 with scmrepo 3.6.2.
# Seen: with `/live/*` and `!/live/parts.dvc` in .gitignore, Git tracks live/parts.dvc, and `dvc add live/parts` succeeds and writes it.
#   From then on DVC does not know it: `dvc status` and `dvc checkout` pass over it with exit status 0, and after the data have gone
#   `dvc checkout` restores nothing and lists the folder as deleted. (scmrepo takes the folder `live` for ignored, which Git does not.)
# Expected: what `dvc add` has written is tracked, or `dvc add` refuses; Git's own answer on what is ignored.
# Why it matters here: a live project keeps its parts of texts in a folder beside notes that Git must not have; with this pattern, the
#   usual one for "all but this file", a version of the project would silently lack its data (docs/live.md).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "dvc==3.67.1" "scmrepo==3.6.2"
export PATH="$folder/venv/bin:$PATH" DVC_NO_ANALYTICS=1
mkdir "$folder/project" && cd "$folder/project"
git init -q . && git config user.email a@b && git config user.name n
dvc init -q && dvc config core.analytics false
printf '/live/*\n!/live/parts.dvc\n' > .gitignore
mkdir -p live/parts && echo text > live/parts/one
dvc add -q live/parts
git add -A && git commit -qm one
echo "Git tracks: $(git ls-files live | tr '\n' ' ')"
echo "Git ignores the folder: $(git check-ignore -q live && echo yes || echo no)"
rm -r live/parts
said=$(dvc checkout live/parts.dvc 2>&1) && code=0 || code=$?
all=$(dvc checkout 2>&1) && whole=0 || whole=$?
echo "dvc checkout: exit status $whole, says: ${all:-nothing}"
echo "restored: $(test -e live/parts/one && echo yes || echo no)"
echo "dvc status: $(dvc status 2>&1 | tr '\n' ' ')"
[ "$(git ls-files live)" = live/parts.dvc ] && ! git check-ignore -q live
[ "$whole" = 0 ] && [ ! -e live/parts/one ]
