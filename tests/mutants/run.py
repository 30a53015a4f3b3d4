#!/usr/bin/env python3
"""Changes the library in small ways and asks whether the fast tests notice: `tests/mutants/run.py store|image`.

The mutants are those of cargo-mutants (`cargo install cargo-mutants --locked`). It would build the whole package for each of
several thousand; this builds only the layers that the mutants are in and their tests, in copies of the tree, and stops at the
first test that fails. `store` takes src/format and src/store, `image` takes src/image.

    --sample N --seed S     N of them, drawn with the seed S
    --only TEXT             those whose names contain the text
    --jobs N                copies of the tree, each building on its own (2)
    --trees DIR             where the copies are kept, so that less has to be built the next time
    --out FILE              one JSON object a mutant; those that are in it already are not run again (target/mutants-LAYER.jsonl)

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

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = {"store": ["src/format/**", "src/store/**"], "image": ["src/image/**"]}
TESTS = {
    "store": ["golden", "together"],
    "image": ["golden", "golden_image", "golden_damaged", "image_basic", "image_check", "image_counts", "image_files",
              "image_model", "image_no_space", "image_users"],
}
# The store's tests as modules of one program, which is linked faster than seven; the quick ones first.
TOGETHER = ["store_records", "store_no_space", "store_plan_order", "store_space", "store_jobs", "store_rules", "store_model"]
# Above the layer that is looked at, and what only the package as a whole needs.
ABOVE = {"store": ["image", "ffi"], "image": ["ffi"]}
SECONDS = 60
MEMORY = 4 << 30


def main():
    options = arguments()
    mutants = listed(options)
    out = pathlib.Path(options.out or ROOT / f"target/mutants-{options.layer}.jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {result["name"]: result["outcome"] for result in map(json.loads, out.open())} if out.exists() else {}
    queue = [mutant for mutant in mutants if mutant["name"] not in done]
    lock = threading.Lock()

    def work(tree):
        while True:
            with lock:
                if not queue:
                    return
                mutant = queue.pop(0)
            outcome = tree.judge(mutant)
            with lock, out.open("a") as file:
                done[mutant["name"]] = outcome
                file.write(json.dumps({"name": mutant["name"], "outcome": outcome}) + "\n")
                print(f"{len(queue)} left: {outcome}: {mutant['name']}", flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        directory = options.trees or temporary
        trees = []
        for number in range(options.jobs if queue else 0):
            trees.append(Tree(pathlib.Path(directory) / str(number), options.layer, trees[0] if trees else None))
        threads = [threading.Thread(target=work, args=[tree]) for tree in trees]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return told([(mutant["name"], done[mutant["name"]]) for mutant in mutants])


def arguments():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("layer", choices=FILES)
    parser.add_argument("--sample", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--trees")
    parser.add_argument("--out")
    return parser.parse_args()


def listed(options):
    command = ["cargo", "mutants", "--list", "--json"]
    for pattern in FILES[options.layer]:
        command += ["--file", pattern]
    mutants = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    if options.sample:
        mutants = random.Random(options.seed).sample(mutants, options.sample)
    return [mutant for mutant in mutants if options.only in mutant["name"]]


def told(outcomes):
    count = {kind: sum(1 for _, outcome in outcomes if outcome == kind) for kind in ("caught", "missed", "unviable")}
    for name, outcome in outcomes:
        if outcome == "missed":
            print(f"missed: {name}")
    compiled = count["caught"] + count["missed"]
    share = count["caught"] / compiled if compiled else 1.0
    print(f"mutants: {len(outcomes)}, {count['unviable']} unviable, {count['caught']} caught, {count['missed']} missed: "
          f"{100 * share:.1f} % of those that compile are caught")
    return 0 if share >= 0.9 else 1


class Tree:
    """A copy of the sources without the layers above, with a target directory of its own, built once."""

    def __init__(self, path, layer, first):
        self.path, self.layer = path, layer
        if first and not (path / "target").exists():
            # What is built of other packages is the same.
            shutil.copytree(first.path / "target", path / "target")
        shutil.rmtree(path / "src", ignore_errors=True)
        names = subprocess.run(["git", "ls-files", "-z", "Cargo.lock", "Cargo.toml", "src", "tests"], cwd=ROOT, check=True,
                               stdout=subprocess.PIPE).stdout.decode().split("\0")
        for name in filter(None, names):
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
        self.prune()
        programs = self.build()
        if programs is None:
            sys.exit(f"{path}: the tree does not build without a change")
        if not self.passes(programs):
            sys.exit(f"{path}: the tests fail without a change")

    def prune(self):
        for layer in [*ABOVE[self.layer], "bin"]:
            shutil.rmtree(self.path / "src" / layer)
        self.edit("src/lib.rs", self.without_layers)
        self.edit("Cargo.toml", manifest)
        if self.layer == "store":
            # Tests run in the order of their names.
            modules = "".join(f'#[path = "{name}.rs"]\nmod t{n}_{name};\n' for n, name in enumerate(TOGETHER))
            (self.path / "tests/together.rs").write_text("#![allow(warnings)]\n" + modules)

    def edit(self, name, change):
        file = self.path / name
        file.write_text(change(file.read_text()))

    def without_layers(self, text):
        text = re.sub(r"^//!.*\n", "", text, flags=re.M).split("/// The Rust examples")[0]
        for layer in ABOVE[self.layer]:
            text = re.sub(rf"(#\[[^\n]*\]\n)*pub mod {layer};\n", "", text)
            text = re.sub(rf"pub use {layer}::\{{.*?\}};\n", "", text, flags=re.S)
        return "#![allow(warnings)]\n" + text

    def build(self):
        """The test programs, or None if they do not compile."""
        command = ["cargo", "test", "--offline", "--no-run", "--quiet", "--message-format=json", "--no-default-features", "--lib"]
        for name in TESTS[self.layer]:
            command += ["--test", name]
        built = subprocess.run(command, cwd=self.path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if built.returncode:
            return None
        messages = map(json.loads, built.stdout.splitlines())
        return [message["executable"] for message in messages if message.get("executable")]

    def judge(self, mutant):
        file = self.path / mutant["file"]
        original = file.read_text()
        try:
            file.write_text(changed(original, mutant["span"], mutant["replacement"]))
            programs = self.build()
            if programs is None:
                return "unviable"
            return "missed" if self.passes(programs) else "caught"
        finally:
            file.write_text(original)

    def passes(self, programs):
        return all(passes(program, self.path) for program in programs)


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


def passes(program, directory):
    """Whether a test program passes; it is ended at the first failure, after a time, and where it asks for too much memory."""
    environment = dict(os.environ, CARGO_MANIFEST_DIR=str(directory), PROPTEST_MAX_SHRINK_ITERS="0", RUST_BACKTRACE="0",
                       DMSNAP_SEED="1")
    child = subprocess.Popen([program], cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             start_new_session=True,
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)))
    end = lambda: os.killpg(child.pid, signal.SIGKILL)
    timer = threading.Timer(SECONDS, end)
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
