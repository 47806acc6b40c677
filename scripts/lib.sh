# What the scripts share. Sourced, from the root of the repository.

called_from=${OLDPWD:-$PWD}

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }
# A path that was given, as seen from where the script was called.
given() { case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "$called_from/$1" ;; esac; }
need() { command -v "$1" >/dev/null || die "needs $1: $2"; }

# What is installed, packed or downloaded. LLVM makes larger what it takes into its callers: the kernels, where the time
# goes, say themselves what is to be taken in, and for all else this is a fourteenth of the library, for no time in what
# `grug bench` measures.
small="-C llvm-args=-inline-threshold=20"

# build_test_driver LIBRARY: the tests' CUDA driver, which runs the kernels on the processor. As tests/cuda/mod.rs does.
build_test_driver() {
    "${CXX:-c++}" -std=c++17 -O2 -w -shared -fPIC -DGRUG_SHIM -Itests/cuda -Isrc/backend/cuda tests/cuda/driver.cpp -o "$1"
}

# compile_c SOURCE PROGRAM: as a host would, against the shared library of the release build.
compile_c() {
    "${CC:-cc}" -std=c99 -Wall -Wextra -Wpedantic -Werror -O2 -Iinclude "$1" -o "$2" \
        -Ltarget/release -lgrug -Wl,-rpath,"$PWD/target/release"
}

# libtorch's threads spin while they wait for each other. Where other programs use the cores too, that is the time of the
# thread that they wait for; to spin a hundredth as long costs nothing on free cores.
export GOMP_SPINCOUNT=${GOMP_SPINCOUNT-1000}
