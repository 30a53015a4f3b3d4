#!/usr/bin/env bash
# Builds the C and C++ programs of this directory against an installed copy of the library and runs
# them: linked shared and static, under valgrind, and with AddressSanitizer and, for their own code,
# UndefinedBehaviorSanitizer; those with several threads with ThreadSanitizer too. Compares the
# exported symbols with the header, and with what the programs use.
#
# `ffi-tests/run.sh [NAME...]` runs only the programs named. The last line counts; the exit status
# is 0 only if nothing failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
here=$root/ffi-tests
target=${CARGO_TARGET_DIR:-$root/target}
stage=$target/ffi-install
work=$target/ffi-tests
source "$here/programs.sh"

passed=0
failures=()

# Runs a command as one test; its output is shown only if it fails.
try() {
    local name=$1 log=$work/log
    shift
    if "$@" > "$log" 2>&1; then
        passed=$((passed + 1))
    else
        failures+=("$name")
        echo "FAILED $name: $*"
        tail -n 40 "$log"
    fi
}

rm -rf "$stage" "$work"
mkdir -p "$work"
echo "ffi-tests: installing into $stage"
if ! make install DESTDIR="$stage" PREFIX=/usr > "$work/install.log" 2>&1; then
    tail -n 40 "$work/install.log"
    echo "ffi-tests: 0 passed, 1 failed"
    exit 1
fi

# Only what was installed is found: neither another dmsnap of this system nor the source tree.
export PKG_CONFIG_LIBDIR=$stage/usr/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$stage
library=$stage/usr/lib/libdmsnap.so.0
header=$stage/usr/include/dmsnap.h
read -ra shared_flags <<< "$(pkg-config --cflags --libs dmsnap)"
read -ra static_flags <<< "$(pkg-config --static --cflags --libs dmsnap)"
# The linker takes the shared library where it finds both, so the static one is named.
static_flags=("${static_flags[@]/#-ldmsnap/-l:libdmsnap.a}")

strict=(-g -Wall -Wextra -Wpedantic -Werror)
c_flags=(-std=c99 -D_XOPEN_SOURCE=700 "${strict[@]}")
cxx_flags=(-std=c++17 "${strict[@]}")
sanitize=("-fsanitize=address,undefined" -fno-sanitize-recover=all -fno-omit-frame-pointer)

watch=(-fsanitize=thread -fno-builtin -rdynamic "${shared_flags[@]}")

# compile OUTPUT SOURCES... -- FLAGS...
compile() {
    local output=$1 sources=() compiler=("${CC:-cc}" "${c_flags[@]}")
    shift
    while [ "$1" != -- ]; do
        sources+=("$here/$1")
        shift
    done
    shift
    [[ ${sources[0]} != *.cpp ]] || compiler=("${CXX:-c++}" "${cxx_flags[@]}")
    "${compiler[@]}" -I"$work" "${sources[@]}" -o "$output" "$@" -lpthread -ldl
}

# Each run has a directory of its own, so that no file of another one is met.
in_directory() {
    local directory=$work/run.$RANDOM$RANDOM status
    mkdir -p "$directory"
    (cd "$directory" && "$@")
    status=$?
    rm -rf "$directory"
    return $status
}

run_shared() { LD_LIBRARY_PATH=$stage/usr/lib in_directory "$@"; }

run_valgrind() {
    run_shared valgrind --quiet --error-exitcode=99 --leak-check=full \
        --errors-for-leak-kinds=definite,indirect,possible --show-leak-kinds=definite,indirect,possible "$@"
}

# With the library that has the sanitizer too.
run_sanitized() { ASAN_OPTIONS=detect_leaks=1 LD_LIBRARY_PATH=$work/sanitized in_directory "$@"; }

run_watched() { LD_LIBRARY_PATH=$work/tsan in_directory "$@"; }

needs() { readelf -d "$1" | grep NEEDED; }

is_linked_static() { [[ $(needs "$1") != *libdmsnap* ]]; }

is_linked_shared() { [[ $(needs "$1") == *libdmsnap.so.0* ]]; }

# The sanitizer is in there, not only on the command line.
is_sanitized() { [[ $(nm -D "$1") == *__asan_init* ]]; }

# build_with NAME RUSTFLAGS: the same library with a sanitizer in its Rust code. The option is not a stable one of rustc, so
# it has to be unlocked.
build_with() {
    local host
    host=$(rustc -vV | sed -n 's/^host: //p')
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=$2 "${CARGO:-cargo}" rustc --locked --lib --crate-type cdylib \
        --no-default-features --features capi --target "$host" --target-dir "$target/$1" &&
        mkdir -p "$work/$1" &&
        cp "$target/$1/$host/debug/libdmsnap.so" "$work/$1/libdmsnap.so.0"
}

# Runs what has to fail with these words.
complains() {
    local words=$1 output
    shift
    ! output=$("$@" 2>&1) && [[ $output == *"$words"* ]]
}

tools() {
    try "the library builds with the sanitizer" build_with sanitized -Zsanitizer=address
    try "the library has the sanitizer" is_sanitized "$work/sanitized/libdmsnap.so.0"
    try "canary builds" compile "$work/canary" canary.c -- "${shared_flags[@]}"
    try "canary builds, sanitized" compile "$work/canary.asan" canary.c -- "${sanitize[@]}" "${shared_flags[@]}"
    try "valgrind sees the library read too far" complains "Invalid read" run_valgrind "$work/canary"
    try "the sanitizer sees it too" complains heap-buffer-overflow run_sanitized "$work/canary.asan"
}

program() {
    local name=$1
    shift
    try "$name builds, shared" compile "$work/$name" "$@" -- "${shared_flags[@]}"
    try "$name uses the shared library" is_linked_shared "$work/$name"
    try "$name, shared" run_shared "$work/$name"
    try "$name, valgrind" run_valgrind "$work/$name"
    try "$name builds, static" compile "$work/$name.static" "$@" -- "${static_flags[@]}"
    try "$name needs no shared library" is_linked_static "$work/$name.static"
    try "$name, static" in_directory "$work/$name.static"
    try "$name builds, sanitized" compile "$work/$name.asan" "$@" -- "${sanitize[@]}" "${shared_flags[@]}"
    try "$name has the sanitizer" is_sanitized "$work/$name.asan"
    try "$name, sanitized" run_sanitized "$work/$name.asan"
}

# ThreadSanitizer. The standard library is not compiled with it; src/sync/spinning.rs says what that takes.
race_tools() {
    try "the library builds with ThreadSanitizer" build_with tsan \
        "--cfg tsan -Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
    try "canary_race builds" compile "$work/canary_race" canary_race.c tsan.c -- "${watch[@]}"
    try "ThreadSanitizer sees a race in the library" complains "data race" run_watched "$work/canary_race"
}

# A program with several threads.
racing() {
    local name=$1
    shift
    try "$name builds, ThreadSanitizer" compile "$work/$name.tsan" "$@" tsan.c -- "${watch[@]}"
    try "$name, ThreadSanitizer" run_watched "$work/$name.tsan"
}

# Loads the library by itself, so it is linked with nothing.
loader() {
    local name=$1
    shift
    try "$name builds" compile "$work/$name" "$@" --
    try "$name" run_shared "$work/$name"
    try "$name, valgrind" run_valgrind "$work/$name"
    try "$name builds, sanitized" compile "$work/$name.asan" "$@" -- "${sanitize[@]}"
    try "$name, sanitized" run_sanitized "$work/$name.asan"
}

exported() { nm -D --defined-only "$library" | awk '{ print $3 }' | sort; }

# The declarations of all functions, one a line.
declarations() {
    "${CC:-cc}" -E -P -xc "$header" | tr '\n' ' ' | sed 's/;/;\n/g; s/  */ /g' | grep -E '^ *[a-z_].*dmsnap_[a-z_0-9]+\('
}

# A call of every function, for hostile_arguments.c.
write_calls() { declarations | awk -f "$here/calls.awk" > "$work/calls.inc"; }

called() { sed -n 's/^    {"\(dmsnap_[a-z_0-9]*\)",.*/\1/p' "$work/calls.inc" | sort; }

declared() { grep -Eo '^[a-z].*\bdmsnap_[a-z_0-9]+\(' "$header" | grep -Eo 'dmsnap_[a-z_0-9]+\($' | tr -d '(' | sort; }

used() {
    local name
    for name in "${!programs[@]}"; do
        # This one calls everything, and means nothing by it.
        [ "$name" != hostile_arguments ] || continue
        nm -D --undefined-only "$work/$name" | awk '{ print $2 }' | grep '^dmsnap_'
    done | sort -u
}

same() { diff "$1" "$2" && [ -s "$1" ]; }

symbols() {
    exported > "$work/exported"
    declared > "$work/declared"
    try "exported symbols are the header's functions" same "$work/declared" "$work/exported"
    called > "$work/called"
    try "every exported function is called with hostile arguments" same "$work/called" "$work/exported"
    try "the SONAME is libdmsnap.so.0" grep -q 'SONAME.*\[libdmsnap.so.0\]' <(readelf -d "$library")
    try "pkg-config tells the header's version" \
        test "$(pkg-config --modversion dmsnap)" = "$(version_of_header)"
}

version_of_header() {
    sed -n 's/^#define DMSNAP_VERSION_\(MAJOR\|MINOR\|PATCH\) //p' "$header" | paste -sd.
}

# Users compile with other options than we do; a header must not be what stops them.
headers() {
    local more=(-Wconversion -Wshadow -Wundef -Wcast-align) standard
    for standard in c99 c11 c2x; do
        try "dmsnap.h as $standard" "${CC:-cc}" -std=$standard "${strict[@]}" "${more[@]}" -Wstrict-prototypes \
            -fsyntax-only "${shared_flags[@]}" "$here/header_alone.c"
    done
    for standard in c++17 c++20; do
        try "both headers as $standard" "${CXX:-c++}" -std=$standard "${strict[@]}" "${more[@]}" -Wold-style-cast \
            -fsyntax-only "${shared_flags[@]}" -include dmsnap.hpp -x c++ "$here/header_alone.c"
    done
}

every_function() {
    used > "$work/used"
    try "every exported function is used by a program" same "$work/used" "$work/exported"
}

# The C program of the README, as a reader would build it. A disk of 1 GiB is sparse.
readme() {
    sed -n '/<!-- c-example-begin -->/,/<!-- c-example-end -->/p' README.md |
        sed '/^<!--/d; /^```/d' > "$work/readme.c"
    try "README's C program builds" "${CC:-cc}" "${strict[@]}" "$work/readme.c" -o "$work/readme" "${shared_flags[@]}"
    try "README's C program" reads_again run_shared "$work/readme"
    try "README's C program, valgrind" reads_again run_valgrind "$work/readme"
}

reads_again() { [ "$("$@")" = again ]; }

write_calls
if [ $# -gt 0 ]; then
    names=("$@")
else
    mapfile -t names < <(printf '%s\n' "${!programs[@]}" | sort)
    symbols
    headers
fi
tools
[[ ${names[*]} != *threads* ]] || race_tools
if [ $# -eq 0 ]; then
    loader dlopen_thread dlopen_thread.c
    readme
fi
for name in "${names[@]}"; do
    read -ra sources <<< "${programs[$name]:?no program $name}"
    program "$name" "${sources[@]}"
    [[ $name != *threads* ]] || racing "$name" "${sources[@]}"
done
[ $# -gt 0 ] || every_function

# For `make torture`: programs that ran with a sanitizer or under valgrind.
[ -z "${DMSNAP_COUNTS:-}" ] || echo "memory sanitized-programs $((2 * ${#names[@]}))" >> "$DMSNAP_COUNTS"
[ ${#failures[@]} -eq 0 ] || printf 'failed: %s\n' "${failures[@]}"
echo "ffi-tests: $passed passed, ${#failures[@]} failed"
[ ${#failures[@]} -eq 0 ]
