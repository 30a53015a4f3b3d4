# Installing Debian's packages, for the scripts that prepare tests; they source it.
# shellcheck shell=bash

# As root or through sudo; only messages on failure. Lists are fetched anew if the install fails: a fresh machine has none, an old one
# has stale ones, and parts of one source must have one version.
install_packages() {
    local as_root=() install log
    command -v apt-get > /dev/null || { echo "these are missing and there is no apt-get to install them; Debian calls them: $*" >&2; return 1; }
    if [ "$(id -u)" != 0 ]; then
        command -v sudo > /dev/null || { echo "run as root: apt-get install $*" >&2; return 1; }
        as_root=(sudo)
    fi
    install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@")
    log=$(mktemp)
    echo "installing $*"
    # shellcheck disable=SC2024
    if ! "${install[@]}" < /dev/null > "$log" 2>&1; then
        { "${as_root[@]}" apt-get -q update && "${install[@]}"; } < /dev/null > "$log" 2>&1 ||
            { tail -n 40 "$log" >&2; echo "could not install $*" >&2; rm -f "$log"; return 1; }
    fi
    rm -f "$log"
}
