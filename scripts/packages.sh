# Sourced by the install scripts: puts in Debian packages for commands that are missing. Quiet when there is nothing to do.

# `need COMMAND PACKAGE`: asks for PACKAGE if COMMAND does not run. A shim that finds nothing behind it does not count.
MISSING_PACKAGES=()
need() {
    if ! "$1" "${3:---version}" >/dev/null 2>&1; then
        MISSING_PACKAGES+=("$2")
    fi
}

# Installs what `need` asked for. The distribution's release fixes the versions: Debian 12 gives Python 3.11, Node 18, Go 1.19
# and g++ 12, and security fixes within them.
install_missing() {
    if [ "${#MISSING_PACKAGES[@]}" -eq 0 ]; then
        return 0
    fi
    echo "missing: ${MISSING_PACKAGES[*]}"
    if ! command -v apt-get >/dev/null; then
        echo "this is no Debian: install them by this system's means, then try again" >&2
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        echo "not root: run  apt-get install --no-install-recommends ${MISSING_PACKAGES[*]}  as root, then try again" >&2
        return 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${MISSING_PACKAGES[@]}" >/dev/null
    echo "installed: ${MISSING_PACKAGES[*]}"
}
