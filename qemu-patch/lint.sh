#!/usr/bin/env bash
# The driver through clang's analysis of locks, the patches through QEMU's checkpatch. After `make qemu`.
set -euo pipefail
# shellcheck source=qemu-patch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# Older ones do not see that a guard gives its lock back.
oldest_clang=19

find_clang() {
    local candidate version
    for candidate in clang $(compgen -c clang- | grep -x 'clang-[0-9]*' | sort -u); do
        version=$("$candidate" -dumpversion 2> /dev/null | cut -d . -f 1) || continue
        if [ "${version:-0}" -ge $oldest_clang ]; then
            echo "$candidate"
            return
        fi
    done
    die "clang $oldest_clang or newer is missing (Debian's package: clang-$oldest_clang)"
}

# As the build compiles the file, with clang in place of gcc.
compile_with() {
    local source=$1 clang=$2
    python3 - "$out/build/compile_commands.json" "$source" "$clang" << 'PYTHON'
import json
import re
import shlex
import sys

commands, source, clang = sys.argv[1:]
entry = next(e for e in json.load(open(commands)) if e["file"].endswith(source))
words = iter(shlex.split(entry["command"])[1:])
only_gcc = re.compile("-f(zero-call-used-regs|ftrivial-auto-var-init|trivial-auto-var-init)=.*")
kept = [clang, "-fsyntax-only", "-DCONFIG_TSA", "-Wthread-safety", "-Wno-unknown-warning-option"]
for word in words:
    if word in ("-o", "-MF", "-MQ"):
        next(words)
    elif word not in ("-c", "-MD") and not only_gcc.fullmatch(word):
        kept.append(word)
print(shlex.join(kept))
PYTHON
}

clang=$(find_clang)
[ -e "$out/build/compile_commands.json" ] || die "QEMU is not built: make qemu"
command=$(compile_with block/dmsnap.c "$clang")
(cd "$out/build" && eval "$command -Werror") || die "$clang -Wthread-safety finds fault with block/dmsnap.c"
say "block/dmsnap.c: no warning by $clang -Wthread-safety"

for patch in "$here"/*.patch; do
    (cd "$out/src" && scripts/checkpatch.pl --no-signoff -q "$patch") || die "checkpatch finds fault with $patch"
done
say "the patches: no error by checkpatch"
