#!/usr/bin/env python3
"""Changes the library in small ways and asks whether the fast tests notice: `tests/mutants/run.py store|image`.

The mutants are those of cargo-mutants (`cargo install cargo-mutants --locked`), which would build the package once for each of
several thousand. Here all of them are put into one program, asleep, and each run wakes one; the few that cannot be put in so are
built one by one. `store` takes src/format and src/store, first on the quick tests of the store and then, those that are missed, on all
of the store and the image; `image` takes src/image. A run ends at the first test that fails.

    --sample N --seed S     N of them, drawn with the seed S
    --only TEXT             those whose names contain the text
    --jobs N                so many at once (2)
    --work DIR              where the copies of the tree are kept, so that less has to be built the next time
    --out FILE              what was found, in lines of JSON (target/mutants-LAYER.jsonl); with --go-on what is in it is not tried again

A mutant is caught (a test fails or does not end, or memory ends), missed, or unviable (does not compile). Exits with 1 if fewer
than 90 % of those that compile are caught.
"""

import argparse
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import namedtuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
FILES = {"store": ["src/format/**", "src/store/**"], "image": ["src/image/**"]}
# Whose tests are tried, in this order.
STAGES = {"store": ["store", "image"], "image": ["image"]}
TESTS = {
    "store": ["golden", "together"],
    "image": ["golden", "together", "golden_image", "golden_damaged", "image_basic", "image_check", "image_no_space",
              "image_users", "image_counts", "image_files", "image_model", "torture_repair"],
}
# Tests that take longer are left out, in seconds.
LONGEST = {"store": 0.4, "image": 10}
# They need a virtual machine.
NOT = ["torture_kernel_loads"]
# The store's tests as modules of one program, which is linked faster than seven; the quick ones first.
TOGETHER = ["store_records", "store_no_space", "store_plan_order", "store_space", "store_jobs", "store_rules", "store_model"]
# Above the layer that is looked at, and what only the package as a whole needs.
ABOVE = {"store": ["image", "ffi"], "image": ["ffi"]}
SECONDS = 90
# Tests that take less than so many seconds are run in one go.
QUICK = 0.1
MEMORY = 4 << 30

AWAKE = """
//! Which mutant is awake: the number in DMSNAP_MUTANT. With DMSNAP_MUTANTS_SEEN none is, and those that were asked for are written to
//! that file.
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

const NONE: u32 = u32::MAX;
const WATCH: u32 = u32::MAX - 1;

static AWAKE: AtomicU32 = AtomicU32::new(NONE);
static SEEN: [AtomicBool; 8192] = [const { AtomicBool::new(false) }; 8192];

#[used]
#[unsafe(link_section = ".init_array")]
static WAKE: extern "C" fn() = wake;
#[used]
#[unsafe(link_section = ".fini_array")]
static TELL: extern "C" fn() = tell;

extern "C" fn wake() {
    let number = std::env::var("DMSNAP_MUTANT").ok().and_then(|text| text.parse().ok());
    let watch = std::env::var_os("DMSNAP_MUTANTS_SEEN").map(|_| WATCH);
    AWAKE.store(number.or(watch).unwrap_or(NONE), Ordering::Relaxed);
}

extern "C" fn tell() {
    if let Some(path) = std::env::var_os("DMSNAP_MUTANTS_SEEN") {
        let seen = SEEN.iter().enumerate().filter(|(_, seen)| seen.load(Ordering::Relaxed));
        let text: Vec<String> = seen.map(|(number, _)| number.to_string()).collect();
        let _ = std::fs::write(path, text.join(" "));
    }
}

#[inline(always)]
pub(crate) fn is(number: u32) -> bool {
    let awake = AWAKE.load(Ordering::Relaxed);
    if awake == WATCH {
        SEEN[number as usize].store(true, Ordering::Relaxed);
    }
    awake == number
}
"""


def main():
    options = arguments()
    mutants = listed(options)
    out = pathlib.Path(options.out or ROOT / f"target/mutants-{options.layer}.jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    if not options.go_on:
        out.unlink(missing_ok=True)
    results = Results(out, mutants)
    with tempfile.TemporaryDirectory() as temporary:
        for stage in STAGES[options.layer]:
            left = results.left(stage)
            if left:
                tree = Tree(pathlib.Path(options.work or temporary) / stage, stage)
                single = tree.together(left, options.jobs, results.note)
                print(f"{stage}: one by one: {len(single)}", flush=True)
                tree.one_by_one(single, results.note)
    return results.told()


Test = namedtuple("Test", "program name seconds seen")


class Results:
    """What was found of each mutant, and by the tests of which layer."""

    def __init__(self, out, mutants):
        self.out, self.mutants, self.found = out, mutants, {}
        for result in map(json.loads, out.open()) if out.exists() else []:
            self.found[result["name"]] = result

    def left(self, stage):
        """Those that the tests of this layer are to be tried on."""
        found = [(mutant, self.found.get(mutant["name"])) for mutant in self.mutants]
        return [mutant for mutant, result in found
                if not result or result["outcome"] == "missed" and result["tests"] != stage]

    def note(self, mutant, tests, outcome):
        result = {"name": mutant["name"], "tests": tests, "outcome": outcome}
        with self.out.open("a") as file:
            file.write(json.dumps(result) + "\n")
        self.found[mutant["name"]] = result
        print(f"{len(self.left(tests))} left: {outcome}: {mutant['name']}", flush=True)

    def told(self):
        outcomes = [(mutant["name"], self.found[mutant["name"]]["outcome"]) for mutant in self.mutants]
        count = {kind: sum(outcome == kind for _, outcome in outcomes) for kind in ("caught", "missed", "unviable")}
        for name, outcome in outcomes:
            if outcome == "missed":
                print(f"missed: {name}")
        compiled = count["caught"] + count["missed"]
        share = count["caught"] / compiled if compiled else 0.0
        print(f"mutants: {len(outcomes)}, {count['unviable']} unviable, {count['caught']} caught, {count['missed']} missed: "
              f"{100 * share:.1f} % of those that compile are caught")
        return 0 if share >= 0.9 else 1


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.replace("%", "%%"),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layer", choices=FILES)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work")
    parser.add_argument("--out")
    parser.add_argument("--go-on", action="store_true")
    return parser.parse_args()


def listed(options):
    command = ["cargo", "mutants", "--list", "--json"]
    for pattern in FILES[options.layer]:
        command += ["--file", pattern]
    mutants = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    for number, mutant in enumerate(mutants):
        mutant["id"] = number
    if options.sample:
        mutants = random.Random(options.seed).sample(mutants, options.sample)
    return [mutant for mutant in mutants if options.only in mutant["name"]]


class Tree:
    """A copy of the sources without the layers above."""

    def __init__(self, path, layer):
        self.path, self.layer = path, layer

    def fresh(self):
        """The sources as they are, and how the copy differs from them."""
        names = subprocess.run(["git", "ls-files", "-z", "Cargo.lock", "Cargo.toml", "src", "tests"], cwd=ROOT, check=True,
                               stdout=subprocess.PIPE).stdout.decode().split("\0")
        for layer in [*ABOVE[self.layer], "bin"]:
            shutil.rmtree(self.path / "src" / layer, ignore_errors=True)
        left_out = tuple(f"src/{layer}/" for layer in [*ABOVE[self.layer], "bin"])
        for name in filter(None, names):
            if not name.startswith(left_out):
                self.write(name, (ROOT / name).read_bytes())
        self.write("src/lib.rs", self.without_layers((ROOT / "src/lib.rs").read_text()).encode())
        self.write("Cargo.toml", manifest((ROOT / "Cargo.toml").read_text()).encode())
        self.write("src/mutant.rs", AWAKE.encode())
        if "together" in TESTS[self.layer]:
            # Tests run in the order of their names.
            modules = "".join(f'#[path = "{name}.rs"]\nmod t{n}_{name};\n' for n, name in enumerate(TOGETHER))
            self.write("tests/together.rs", b"#![allow(warnings)]\n" + modules.encode())

    def write(self, name, content):
        """What has not changed is not built again."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists() or file.read_bytes() != content:
            file.write_bytes(content)

    def without_layers(self, text):
        text = re.sub(r"^//!.*\n", "", text, flags=re.M).split("/// The Rust examples")[0]
        for layer in ABOVE[self.layer]:
            text = re.sub(rf"(#\[[^\n]*\]\n)*pub mod {layer};\n", "", text)
            text = re.sub(rf"pub use {layer}::\{{.*?\}};\n", "", text, flags=re.S)
        return "#![allow(warnings)]\nmod mutant;\n" + text

    def together(self, mutants, jobs, note):
        """Runs all that can be put into one program; returns the others."""
        programs, placed = self.build_all(mutants)
        tests = [test for program in programs for test in self.tests_of(program) if test.seconds < LONGEST[self.layer]]
        queue, lock = [mutant for mutant in mutants if mutant["id"] in placed], threading.Lock()

        def work():
            while True:
                with lock:
                    if not queue:
                        return
                    mutant = queue.pop(0)
                outcome = "missed" if self.survives(mutant["id"], tests) else "caught"
                with lock:
                    note(mutant, self.layer, outcome)

        threads = [threading.Thread(target=work) for _ in range(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [mutant for mutant in mutants if mutant["id"] not in placed]

    def tests_of(self, program):
        """Each with the time that it takes and the mutants that it asks for."""
        names = subprocess.run([program, "--list", "--format=terse"], check=True, stdout=subprocess.PIPE).stdout.decode()
        for name in re.findall(r"^(.*): test$", names, flags=re.M):
            if name in NOT:
                continue
            seen, started = self.path / "seen", time.monotonic()
            seen.unlink(missing_ok=True)
            if not passes(program, self.path, [name], SECONDS, {"DMSNAP_MUTANTS_SEEN": str(seen)}):
                sys.exit(f"{name} of {program} fails without a change")
            # A program that comes across none at all is linked without what writes it.
            numbers = seen.read_text().split() if seen.exists() else []
            yield Test(program, name, time.monotonic() - started, set(map(int, numbers)))

    def survives(self, mutant, tests):
        """The tests that come across it, those that take no time together, the others one by one."""
        around = sorted((test for test in tests if mutant in test.seen), key=lambda test: test.seconds)
        runs = {}
        for number, test in enumerate(around):
            runs.setdefault((test.program, test.seconds < QUICK or number), []).append(test)
        awake = {"DMSNAP_MUTANT": str(mutant)}
        return all(
            passes(program, self.path, [test.name for test in run], 10 + 10 * sum(test.seconds for test in run), awake)
            for (program, _), run in runs.items()
        )

    def build_all(self, mutants):
        """The programs with as many as compile, and the numbers of those."""
        inside = list(mutants)
        while True:
            self.fresh()
            placed = place(self.path, inside)
            programs, errors = self.build()
            if programs is not None:
                return programs, {one["id"] for one in placed}
            bad = blamed(errors, placed)
            print(f"do not compile with the others: {len(bad)}", flush=True)
            if not bad:
                sys.exit("\n".join(error["rendered"] for error in errors[:5]))
            inside = [mutant for mutant in inside if mutant["id"] not in bad]

    def one_by_one(self, mutants, note):
        self.fresh()
        for mutant in mutants:
            file = self.path / mutant["file"]
            original = file.read_text()
            file.write_text(changed(original, mutant["span"], mutant["replacement"]))
            programs, _ = self.build()
            if programs is None:
                note(mutant, self.layer, "unviable")
            else:
                passed = all(passes(program, self.path, [], SECONDS, {}) for program in programs)
                note(mutant, self.layer, "missed" if passed else "caught")
            file.write_text(original)

    def build(self):
        """The test programs, the library's own first, or None and the errors."""
        command = ["cargo", "test", "--offline", "--no-run", "--message-format=json", "--no-default-features", "--lib"]
        for name in TESTS[self.layer]:
            command += ["--test", name]
        built = subprocess.run(command, cwd=self.path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        messages = [json.loads(line) for line in built.stdout.splitlines()]
        if built.returncode:
            told = [message["message"] for message in messages if message["reason"] == "compiler-message"]
            return None, [message for message in told if message["level"] == "error" and message["spans"]]
        programs = {message["target"]["name"]: message["executable"] for message in messages if message.get("executable")}
        return [programs[name] for name in ["dmsnap", *TESTS[self.layer]]], []


def place(tree, mutants):
    command = ["cargo", "run", "--locked", "--quiet", "--release", "--manifest-path", HERE / "Cargo.toml",
               "--target-dir", ROOT / "target/mutants", "--", tree]
    run = subprocess.run(command, input=json.dumps(mutants).encode(), check=True, stdout=subprocess.PIPE)
    return json.loads(run.stdout)


def blamed(errors, placed):
    """The mutants in whose text, the narrowest that there is, the compiler saw an error."""
    bad = set()
    for error in errors:
        for span in error["spans"]:
            around = [one for one in placed if one["file"] == span["file_name"]
                      and one["start"] <= span["byte_start"] and span["byte_end"] <= one["end"]]
            least = min((one["end"] - one["start"] for one in around), default=0)
            bad |= {one["id"] for one in around if one["end"] - one["start"] == least}
    return bad


def manifest(text):
    """Without the tool and benches; debug information is not read by anyone."""
    sections = re.split(r"(?=^\[)", text, flags=re.M)
    text = "".join(part for part in sections if not part.startswith(("[[bin]]", "[[bench]]")))
    text = re.sub(r"^crate-type = .*$", 'crate-type = ["lib"]', text, flags=re.M)
    text = text.replace("[profile.dev]\n", "[profile.dev]\ndebug = 0\n")
    return text.replace('path = ".", features', 'path = ".", default-features = false, features')


def changed(text, span, replacement):
    """`text` with the span, in lines and columns of characters from 1 on, replaced."""
    lines = text.splitlines(keepends=True)

    def offset(place):
        return sum(map(len, lines[:place["line"] - 1])) + place["column"] - 1

    return text[:offset(span["start"])] + replacement + text[offset(span["end"]):]


def passes(program, directory, names, seconds, environment):
    """Whether tests pass; ended at the first failure, after so many seconds, and where they ask for too much memory."""
    environment = dict(os.environ, CARGO_MANIFEST_DIR=str(directory), PROPTEST_MAX_SHRINK_ITERS="0", RUST_BACKTRACE="0",
                       DMSNAP_SEED="1", **environment)
    # A core for each of those that run at once, where there are two.
    child = subprocess.Popen([program, "--test-threads=1", "--exact", *names], cwd=directory, env=environment,
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)))

    def end():
        os.killpg(child.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        for line in child.stdout:
            if b"... FAILED" in line:
                end()
                return False
        return child.wait() == 0
    finally:
        timer.cancel()
        child.stdout.close()
        child.wait()


if __name__ == "__main__":
    sys.exit(main())
