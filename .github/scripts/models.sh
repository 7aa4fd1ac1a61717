#!/usr/bin/env bash
# The models that changed since a commit: `models.sh validate BASE`, or `models.sh drop BASE`.
#
# A model is a folder models/NAME, as `slipway push` takes it; models/NAME.policy.json is the policy to validate it by.
# All are gone through, whatever becomes of one. Ends with 0 where all are well, else with the exit code of the last
# that was not: 1 refused or rejected, 6 taken back by its rollout.
set -euo pipefail
# What a function fails at, it returns with: within `||` the shell goes on after an error.

slipway=${SLIPWAY:-./slipway}
starts_within_s=${STARTS_WITHIN_S:-180}
mode=$1 base=$2
case $mode in
    validate | drop) ;;
    *) echo "models.sh: '$mode' is neither validate nor drop" >&2 && exit 2 ;;
esac

# A branch that is new has no commit before it: then everything is.
if ! git cat-file -e "$base^{commit}" 2>/dev/null; then
    base=$(git hash-object -t tree /dev/null)
fi

changed() {
    git diff --name-only "$base" HEAD -- models | cut -d/ -f2 | sed 's/\.policy\.json$//' | sort -u | while read -r name; do
        if [[ -d models/$name ]]; then echo "$name"; fi
    done
}

validate() {
    local name=$1 arguments=(--report "reports/$1.html" --report "reports/$1.json") champion
    mkdir -p reports
    if [[ -f models/$name.policy.json ]]; then arguments+=(--policy "models/$name.policy.json"); fi
    # What is compared with is what it replaces.
    if git cat-file -e "$base:models/$name" 2>/dev/null; then
        champion=$(mktemp -d)
        git archive "$base" "models/$name" | tar -x -C "$champion" || return
        arguments+=(--champion "$champion/models/$name")
    fi
    "$slipway" validate "models/$name" "${arguments[@]}"
}

drop() {
    local name=$1 pushed version automatic
    pushed=$("$slipway" push "models/$name" --model "$name" --wait --timeout 1800 --json) || {
        local code=$?
        echo "$pushed"
        return "$code"
    }
    version=$(jq --exit-status '.version.version' <<<"$pushed") || return
    echo "$name: version $version is validated"
    automatic=$("$slipway" policy show "$name" --json | jq '.rollout.automatic') || return
    if [[ $automatic == false ]]; then
        echo "$name: its policy starts no rollout by itself; start it: slipway rollout start $name $version"
        return 0
    fi
    local until=$((SECONDS + starts_within_s))
    until "$slipway" rollout status "$name" --json | jq --exit-status --argjson version "$version" \
        '.endpoint.rollout.version == $version' >/dev/null; do
        if ((SECONDS >= until)); then
            echo "$name: no rollout of version $version began within $starts_within_s s: slipway rollout status $name"
            return 1
        fi
        sleep 3
    done
    "$slipway" rollout watch "$name" --every 10
}

code=0
for name in $(changed); do
    echo "== $name"
    "$mode" "$name" || code=$?
done
exit "$code"
