//! Cases of several layers.

use std::path::Path;

use dmsnap::{ChunkSize, Image, OpenOptions, OriginChoice};

use crate::library::{self, sha256};
use crate::pair::Pair;
use crate::together::{Case, Desk};
use crate::tool;

pub(crate) fn all() -> Vec<Case> {
    vec![Case::new("two layers", two_layers)]
}

/// A snapshot taken by us: the kernel stacks the layers as we do.
fn two_layers(desk: &Desk<'_>) {
    let mut pair = Pair::create(desk, 1803, 8);
    let top = desk.directory.join("top");
    let options = OpenOptions::new().origin(OriginChoice::FromImage);
    let image = Image::open(&pair.cow, &options.clone().writable(true)).unwrap();
    pair.scribble(&image, 12);
    let below = sha256(&pair.model);
    let below_chunk = pair.chunk;
    pair.chunk = ChunkSize::from_sectors(32).unwrap();
    image.snapshot(&top, Some(pair.chunk)).unwrap();
    pair.scribble(&image, 12);
    image.close().unwrap();

    let attach_top = tool::ok(
        desk.directory,
        &[
            "table",
            "top",
            "--name",
            "t",
            "--cover",
            "--origin-dev",
            "/dev/mapper/s",
            "--cow-dev",
            "/dev/top",
        ],
    );
    let status = Image::open(&top, &options).unwrap().status().to_string();
    let seen = sha256(&pair.model);
    let writes = pair.kernel_writes(5).replace("put s", "put t");
    pair.chunk = below_chunk;
    let scenario = pair
        .scenario()
        .disk("top", &top)
        .script("ln -s $top /dev/top")
        .script(&pair.attach(false))
        .script(&attach_top)
        .script("field status \"$(status t)\"; field view $(hash t)")
        .script(&writes)
        .script("field after \"$(status t)\"; field below $(hash s); detach t s");
    let outcome = desk.kernel(scenario);
    assert_eq!(outcome.field("below"), below);
    assert_eq!(outcome.field("view"), seen);
    assert_eq!(outcome.field("status"), status);
    let image = Image::open(&top, &options.writable(true)).unwrap();
    library::assert_same(
        &library::view(&image),
        &pair.model,
        "with the kernel's writes",
    );
    assert_eq!(image.status().to_string(), outcome.field("after"));
    image.close().unwrap();
    merge_upper(desk, &pair, &top);
}

/// The kernel merges the upper layer into the device that the lower one is.
fn merge_upper(desk: &Desk<'_>, pair: &Pair, top: &Path) {
    let merge = "merge t s $top PO 32; field merged \"$(wait_merge t)\"; detach t";
    let scenario = pair
        .scenario()
        .disk("top", top)
        .script(&pair.attach(true))
        .script(merge)
        .script("field view $(hash s); field status \"$(status s)\"");
    let outcome = desk.kernel(scenario);
    assert_eq!(outcome.field("view"), sha256(&pair.model));
    assert_eq!(pair.look(), outcome.field("status"));
}
