//! Cases in which the power goes while we write or merge: the kernel goes on from what is left.

use std::fs;
use std::sync::Arc;

use dmsnap::storage::testing::Recorder;
use dmsnap::storage::{MemoryStorage, SharedStorage};
use dmsnap::{CreateOptions, Format, Image, OpenOptions, OriginChoice};

use crate::budget::{self, Random};
use crate::library;
use crate::pair::Pair;
use crate::together::{Case, Desk};

pub(crate) fn all() -> Vec<Case> {
    let seed = budget::seed();
    let cases = (0..10).map(|number| {
        let sectors = [1, 8, 16][number as usize % 3];
        let merging = number % 2 == 1;
        let what = if merging { "merge" } else { "writes" };
        let name = format!("power cut in {what}, {sectors} sectors, {}", seed + number);
        Case::new(name, move |desk| {
            power_cut(desk, sectors, merging, seed + number);
        })
    });
    cases.collect()
}

fn power_cut(desk: &Desk<'_>, sectors: u32, merging: bool, seed: u64) {
    let mut random = Random(seed);
    let mut pair = Pair::plan(desk, 1403, sectors);
    let (blank, origin) = (MemoryStorage::new(), MemoryStorage::from_bytes(&pair.model));
    let options = CreateOptions::new().chunk_size(pair.chunk);
    let options = match sectors < 8 {
        true => options.bare(true),
        false => options
            .origin("origin", Format::Raw)
            .origin_identity(None, pair.model.len() as u64),
    };
    let new: SharedStorage = Arc::new(blank);
    Image::create_on(&new, &options).unwrap();
    let recorder = Recorder::new();
    let initial = MemoryStorage::from_bytes(&library::bytes_of(&new));
    let cow = Arc::new(recorder.storage(&initial));
    let below = Arc::new(recorder.storage(&origin));
    let options = OpenOptions::new().writable(true);
    let options = options.origin(OriginChoice::Storage(below));
    let image = Image::open_storage(cow, &options).unwrap();
    let mut first = recorder.position();
    pair.scribble(&image, 40);
    if merging {
        image.flush().unwrap();
        first = recorder.position();
        image.merge(&mut |_| true).unwrap();
    }
    let last = recorder.position();
    drop(image);

    // A merge copies most of the time; what it does at the end matters as much.
    let window = match random.below(2) {
        0 => last - first,
        _ => (last - first).min(8),
    };
    let position = last - random.below(window as u64 + 1) as usize;
    let cut = recorder.sample(position, random.below(u64::MAX));
    let left = recorder.rebuild(&cut).unwrap();
    fs::write(&pair.cow, left[0].to_vec()).unwrap();
    fs::write(&pair.origin, left[1].to_vec()).unwrap();
    // How much of the writes is left our own crash tests judge; the kernel has to see the same.
    let (image, _storage) = pair.open(false);
    let view = library::view(&image);
    if merging {
        library::assert_same(&view, &pair.model, &pair.name);
    }
    pair.model = view;
    drop((image, _storage));
    pair.theirs(desk, |pair| pair.kernel_writes(4));
    pair.ours(|pair, image| pair.scribble(image, 5));
    pair.theirs_merged(desk, |_| String::new());
}
