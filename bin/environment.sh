# Sourced by the other programs of this folder: creates the Python environment (.venv) if it is missing or outdated.

# need_environment ROOT EXTRAS: afterwards ROOT/.venv has the project with these extras ("" or "[test]").
# Only one process creates it; others wait until it is done.
need_environment() {
    root=$1 extras=$2
    stamp=$root/.venv/made-with$extras
    is_current && return
    exec 9<"$root"
    flock 9
    is_current || make_environment
    exec 9<&-
}

is_current() {
    [ -x "$root/.venv/bin/python" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(describe)" ]
}

# What an up-to-date environment was created with: the path, the interpreter, the required packages.
describe() {
    echo "$root"
    readlink -f "$root/.venv/bin/python"
    cat "$root/setup.cfg"
}

make_environment() {
    echo "aphlict: setting up Python packages in $root/.venv; this happens once" >&2
    log=$root/.venv/install.log
    if ! is_usable; then
        python=$(find_python) || give_up "Python 3.10 or newer is needed (Debian: apt-get install python3)"
        "$python" -c 'import ensurepip, venv' 2>/dev/null ||
            give_up "Python's venv module is missing: apt-get install python3-venv"
        "$python" -m venv --clear "$root/.venv" >/dev/null ||
            give_up "$root/.venv could not be created (see above); the owner of $root has to run this command once"
    fi
    "$root/.venv/bin/python" -m pip --disable-pip-version-check install --editable "$root$extras" >"$log" 2>&1 ||
        give_up "cannot install the packages; is the network reachable? $(sed -n 's/.*ERROR: //p' "$log" | head -n 1) (more in $log)"
    # An environment with extras is also valid without them.
    for each in "$stamp" "$root/.venv/made-with"; do
        describe >"$each"
    done
}

# Whether the existing environment was created in this folder, with an interpreter that is still the same.
is_usable() {
    [ -f "$root/.venv/made-with" ] && [ "$(head -n 2 "$root/.venv/made-with")" = "$(describe | head -n 2)" ] &&
        "$root/.venv/bin/python" -m pip --version >/dev/null 2>&1
}

# PYTHON overrides the interpreter in the path.
find_python() {
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python3.10 /usr/bin/python3}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

give_up() {
    echo "aphlict: $1" >&2
    exit 1
}
