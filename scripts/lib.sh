# What the scripts share. Sourced, from the root of the repository.

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }
need() { command -v "$1" >/dev/null || die "needs $1: $2"; }

# compile_c SOURCE PROGRAM: as a host would, against the shared library of the release build.
compile_c() {
    "${CC:-cc}" -std=c99 -Wall -Wextra -Wpedantic -Werror -O2 -Iinclude "$1" -o "$2" \
        -Ltarget/release -lgrug -Wl,-rpath,"$PWD/target/release"
}
