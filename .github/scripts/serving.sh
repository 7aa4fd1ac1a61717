#!/usr/bin/env bash
# One image of the model server on one cluster, by the files of the working directory's repository:
#
#     serving.sh apply BEFORE IMAGE ENVIRONMENT OVERLAY    notes revisions in the file BEFORE, then applies and waits
#     serving.sh undo BEFORE                               takes back what has another revision than BEFORE says
#
# Nothing is taken back that the release did not change: a release that fails on its way to the cluster leaves it as it
# was. IMAGE is by digest; OVERLAY is ENVIRONMENT, or one made of it, as production-keda is.
set -euo pipefail

mode=$1 before=$2
kubectl=(kubectl --namespace slipway)
selector=app.kubernetes.io/name=slipway-serving
waited=20m

revisions() {
    "${kubectl[@]}" get deployments --selector "$selector" --output \
        'jsonpath={range .items[*]}{.metadata.name} {.metadata.annotations.deployment\.kubernetes\.io/revision}{"\n"}{end}' | sed '/^$/d'
}

# An idle slot's pods have no version and are never ready: there is nothing to wait for. One that serves keeps its old pods
# until new ones are ready, so that some are always available.
wait_for() {
    local name=$1 slot available
    read -r slot available < <("${kubectl[@]}" get "deployment/$name" --output \
        'jsonpath={.metadata.labels.slipway\.dev/slot} {.status.availableReplicas}{"\n"}')
    if [[ $slot != shared && -z $available ]]; then
        echo "$name is idle: its pods take the image when a version comes to them"
        return
    fi
    "${kubectl[@]}" rollout status "deployment/$name" --timeout "$waited"
}

apply() {
    local image=$1 environment=$2 overlay=$3 folder=aks-serving/k8s/overlays manifests now name
    if [[ $overlay != "$environment" && $overlay != "$environment"-* || ! -f $folder/$overlay/kustomization.yaml ]]; then
        echo "::error::OVERLAY is '$overlay', which is no folder of $folder made of $environment"
        exit 1
    fi
    manifests=$(mktemp)
    (cd "$folder/$environment" && kustomize edit set image "slipway-serving=$image")
    kubectl kustomize "$folder/$overlay" >"$manifests"
    if ! grep --quiet --fixed-strings "image: $image" "$manifests"; then
        echo "::error::the overlay $overlay does not run $image: its images are set elsewhere"
        exit 1
    fi
    revisions >"$before.partly"
    mv "$before.partly" "$before"
    kubectl apply --kustomize aks-serving/k8s/namespaces
    # Ends with 1 where there are differences; what the cluster would refuse, it refuses here, before anything is changed.
    kubectl diff --filename "$manifests" || (($? == 1))
    kubectl apply --filename "$manifests"
    now=$(revisions | cut -d' ' -f1)
    for name in $now; do
        wait_for "$name"
    done
}

undo() {
    local name revision generation now changed=()
    if [[ ! -s $before ]]; then
        echo "::warning::nothing is taken back: there was no release here, or the cluster was not reached"
        return
    fi
    while read -r name revision <&3; do
        # The number changes when the cluster has seen the change, a moment after it was told.
        generation=$("${kubectl[@]}" get "deployment/$name" --output 'jsonpath={.metadata.generation}')
        "${kubectl[@]}" wait "deployment/$name" --for "jsonpath={.status.observedGeneration}=$generation" --timeout 60s
        now=$(revisions)
        if [[ $'\n'$now$'\n' == *$'\n'"$name $revision"$'\n'* ]]; then
            echo "$name is at revision $revision, as before"
            continue
        fi
        "${kubectl[@]}" rollout undo "deployment/$name" --to-revision "$revision"
        changed+=("$name")
    done 3<"$before"
    for name in "${changed[@]}"; do
        wait_for "$name"
    done
}

case $mode in
    apply) apply "$3" "$4" "$5" ;;
    undo) undo ;;
    *) echo "serving.sh: '$mode' is neither apply nor undo" >&2 && exit 2 ;;
esac
