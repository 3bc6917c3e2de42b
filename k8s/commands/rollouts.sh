# shellcheck shell=bash
# Which images there are, waiting until they run, and saying what is wrong when they do not. Sourced after preflight.sh.

# images_of OVERLAY: Sluice's own, without their tags.
images_of() {
    kubectl kustomize "k8s/overlays/$1" | sed -nE 's|^ *(- )?image: ([^ ]*sluice/[a-z-]+)(:[^ ]*)?$|\2|p' | sort -u
}

# wait_for_rollouts SECONDS deployment/engine …: status 0 when all of them are ready within so many seconds together;
# else 1, and for each that is not, what is known of the reason.
wait_for_rollouts() {
    local deadline=$((SECONDS + $1)) left workload said late=()
    for workload in "${@:2}"; do
        left=$((deadline - SECONDS))
        if said=$(kubectl -n "$NAMESPACE" rollout status "$workload" --timeout="$((left > 1 ? left : 1))s" 2>&1); then
            echo "ready: $workload"
        else
            late+=("$workload")
            echo "not ready: $workload, ${said##*$'\n'}" >&2
        fi
    done
    for workload in "${late[@]+"${late[@]}"}"; do
        explain "$workload" >&2
    done
    [ ${#late[@]} -eq 0 ]
}

explain() {
    local name=${1#*/}
    echo "--- $1"
    kubectl -n "$NAMESPACE" get pods -l "app.kubernetes.io/name=$name" || true
    # Of the Deployment, its ReplicaSets and its pods: their names begin with its own.
    kubectl -n "$NAMESPACE" get events --field-selector type=Warning --sort-by=.lastTimestamp --no-headers \
        -o custom-columns='OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message' | grep "^$name" | tail -8 || true
    # Of a container that crashes this is what its last life said.
    kubectl -n "$NAMESPACE" logs -l "app.kubernetes.io/name=$name" --all-containers --prefix --tail=10 || true
}
