# shellcheck shell=bash
# The laptop's cluster, by kind. Sourced after preflight.sh and rollouts.sh.

KIND_CLUSTER=sluice

# A name for images that was never used: a pod is replaced only when the name of its image changes.
new_tag() {
    echo "$(date -u +%Y%m%d-%H%M%S)-$(git rev-parse --short HEAD 2> /dev/null || echo local)"
}

# load_images TAG: into the cluster's node, from wherever `make images` has put them: docker, or buildah.
load_images() {
    local image images=() archive
    while read -r image; do images+=("$image:$1"); done < <(images_of local)
    if docker image inspect "${images[0]}" > /dev/null 2>&1; then
        kind load docker-image --name "$KIND_CLUSTER" "${images[@]}"
        return
    fi
    archive=$(mktemp -d)
    for image in "${images[@]}"; do
        buildah push --quiet "$image" "docker-archive:$archive/image.tar:$image"
        kind load image-archive --name "$KIND_CLUSTER" "$archive/image.tar"
        rm "$archive/image.tar"
    done
    rmdir "$archive"
}
