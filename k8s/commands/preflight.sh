# shellcheck shell=bash
# What a command makes sure of before it does anything. Sourced; it needs nothing but bash.

#: Where Sluice lives in the cluster; nothing else lives there.
# shellcheck disable=SC2034 # it is for those who source this
NAMESPACE=sluice

# The cluster is kubectl's current one, or the one of CONTEXT.
kubectl() { command kubectl ${CONTEXT:+--context "$CONTEXT"} "$@"; }

how_to_get() {
    case $1 in
        kubectl) echo "https://kubernetes.io/docs/tasks/tools (1.27 or newer)" ;;
        kind) echo "https://kind.sigs.k8s.io/docs/user/quick-start (0.33 or newer)" ;;
        docker) echo "https://docs.docker.com/engine/install" ;;
        "docker or buildah") echo "https://docs.docker.com/engine/install, or on Debian: sudo apt-get install buildah" ;;
        *) echo "on Debian: sudo apt-get install $1" ;;
    esac
}

# Ends the command with status 2 when a tool is missing, naming all of them. "docker or buildah" is one of the two.
needs() {
    local tool missing=()
    for tool in "$@"; do
        type -P "${tool%% or *}" > /dev/null || type -P "${tool##* or }" > /dev/null || missing+=("$tool")
    done
    [ ${#missing[@]} -eq 0 ] || echo "These tools are missing:" >&2
    for tool in "${missing[@]+"${missing[@]}"}"; do
        echo "  $tool: $(how_to_get "$tool")" >&2
    done
    [ ${#missing[@]} -eq 0 ] || exit 2
    [[ " $* " != *" kubectl "* ]] || needs_kustomize
    [[ " $* " != *" python3 "* ]] || needs_python
}

needs_python() {
    "${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        echo "Python has to be 3.11 or newer; choose one with PYTHON=python3.12" >&2
        exit 2
    }
}

needs_kustomize() {
    if ! [[ $(command kubectl version --client 2> /dev/null) =~ Kustomize\ Version:\ v([5-9]|[1-9][0-9]) ]]; then
        echo "kubectl is too old, its kustomize has to be 5 or newer: $(how_to_get kubectl)" >&2
        exit 2
    fi
}

# Ends the command when a tag can't be one. An empty one is none.
needs_tag() {
    [[ -z ${1:-} || $1 =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$ ]] || {
        echo "'$1' is no tag of an image." >&2
        exit 2
    }
}

# Ends the command when no cluster answers; else `context` is the name of the one that does, and has been said.
needs_cluster() {
    command kubectl config view > /dev/null || exit 2
    context=${CONTEXT:-$(command kubectl config current-context 2> /dev/null)} || context=
    if [ -z "$context" ]; then
        echo "kubectl knows no cluster. 'make cluster-up' makes one on this machine." >&2
        exit 2
    fi
    if ! kubectl version --request-timeout=10s > /dev/null 2>&1; then
        echo "The cluster of context '$context' does not answer:" >&2
        kubectl version --request-timeout=10s 2>&1 > /dev/null | tail -1 >&2 || true
        exit 2
    fi
    echo "cluster: $context" >&2
}
