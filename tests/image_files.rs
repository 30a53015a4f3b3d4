//! Opening, creating and locking: which files are opened, what is refused and why, and that nothing is half-made or touched in passing.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

mod image_common;

use std::fs;
use std::path::{Path, PathBuf};

use dmsnap::{
    Amend, CheckOptions, CreateOptions, ErrorKind, Format, Image, OpenOptions, OriginChoice, check,
    inspect,
};
use image_common::*;
use tempfile::TempDir;

const SIZE: u64 = 1 << 20;

struct Files {
    directory: TempDir,
}

impl Files {
    fn new() -> Files {
        Files {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn raw(&self, name: &str, seed: u64) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, pattern(seed, SIZE as usize)).unwrap();
        path
    }

    fn layer(&self, name: &str, origin: &str, format: Format) -> PathBuf {
        let path = self.path(name);
        Image::create(&path, &CreateOptions::new().origin(origin, format)).unwrap();
        path
    }

    /// Names and bytes of everything in the directory.
    fn state(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut state: Vec<_> = fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let bytes = fs::read(&path).unwrap();
                (path, bytes)
            })
            .collect();
        state.sort();
        state
    }
}

fn follow() -> OpenOptions {
    OpenOptions::new().origin(OriginChoice::FromImage)
}

fn open_error(path: &Path, options: &OpenOptions) -> (ErrorKind, String) {
    let error = Image::open(path, options).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn test_a_chain_is_followed_only_if_allowed_and_from_the_layers_directory() {
    let files = Files::new();
    files.raw("base.raw", 1);
    files.layer("one", "base.raw", Format::Raw);
    let two = files.layer("two", "one", Format::Dmsnap);
    let (kind, text) = open_error(&two, &OpenOptions::new());
    assert_eq!(kind, ErrorKind::OriginRefused);
    assert!(text.contains("two: ") && text.contains("\"one\""), "{text}");

    let before = files.state();
    let image = Image::open(&two, &follow()).unwrap();
    assert_same(
        &contents(&image),
        &pattern(1, SIZE as usize),
        "through two layers",
    );
    let chain = image.info().unwrap().chain;
    let names: Vec<_> = chain
        .iter()
        .filter_map(|layer| layer.path.as_ref()?.file_name())
        .collect();
    assert_eq!(names, ["two", "one", "base.raw"]);
    assert_eq!(image.warnings(), Vec::<String>::new());
    drop(image);
    inspect(&two).unwrap();
    check(&two, &CheckOptions::new()).unwrap();
    assert!(files.state() == before, "readers change nothing");
}

/// It is the very name that is checked which is followed: no second look at the file lies between.
#[test]
fn test_names_that_lead_out_of_the_directory_are_followed_only_if_all_are_allowed() {
    let files = Files::new();
    let base = files.raw("base.raw", 1);
    let inside = OpenOptions::new().origin(OriginChoice::FromImageInside);
    let near = files.layer("near", "base.raw", Format::Raw);
    drop(Image::open(&near, &inside).unwrap());
    let far = files.layer("far", base.to_str().unwrap(), Format::Raw);
    let top = files.layer("top", "far", Format::Dmsnap);
    for path in [&far, &top] {
        let (kind, text) = open_error(path, &inside);
        assert_eq!(kind, ErrorKind::OriginRefused, "{text}");
        assert!(text.contains("far: ") && text.contains("base.raw"), "{text}");
        drop(Image::open(path, &follow()).unwrap());
    }
}

#[test]
fn test_an_explicit_origin_overrides_the_stored_one() {
    let files = Files::new();
    files.raw("base.raw", 1);
    let other = files.raw("other.raw", 2);
    let layer = files.layer("layer", "base.raw", Format::Raw);
    let choice = OriginChoice::Path {
        path: other,
        format: Format::Raw,
        below: Box::default(),
    };
    let image = Image::open(&layer, &OpenOptions::new().origin(choice)).unwrap();
    assert_same(
        &contents(&image),
        &pattern(2, SIZE as usize),
        "the other origin",
    );
    drop(image);
    let image = Image::open(&layer, &OpenOptions::new().origin(OriginChoice::Zeros)).unwrap();
    assert_same(&contents(&image), &vec![0; SIZE as usize], "no origin");
}

#[test]
fn test_an_origin_of_another_identity_is_refused_unless_forced() {
    let files = Files::new();
    files.raw("base.raw", 1);
    files.layer("one", "base.raw", Format::Raw);
    let two = files.layer("two", "one", Format::Dmsnap);
    fs::remove_file(files.path("one")).unwrap();
    files.layer("one", "base.raw", Format::Raw);
    let (kind, text) = open_error(&two, &follow());
    assert_eq!(kind, ErrorKind::OriginMismatch, "{text}");
    drop(Image::open(&two, &follow().ignore_origin_uuid(true)).unwrap());

    let layer = files.layer("layer", "base.raw", Format::Raw);
    fs::write(files.path("base.raw"), pattern(1, 4096)).unwrap();
    let image = Image::open(&layer, &follow()).unwrap();
    let warnings = image.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("4096"),
        "{warnings:?}"
    );
}

#[test]
fn test_chains_that_contain_themselves_or_are_too_long_are_refused() {
    let files = Files::new();
    files.raw("base.raw", 1);
    let one = files.layer("one", "base.raw", Format::Raw);
    files.layer("two", "one", Format::Dmsnap);
    let image = Image::open(&one, &follow().writable(true)).unwrap();
    image
        .amend(&Amend::new().origin("base.raw", Format::Raw))
        .unwrap();
    image.close().unwrap();
    // The name of the origin changes hands: "two" becomes "base.raw".
    fs::rename(files.path("two"), files.path("base.raw")).unwrap();
    let image = Image::open(
        &one,
        &OpenOptions::new()
            .writable(true)
            .origin(OriginChoice::Zeros),
    );
    let error = image
        .unwrap()
        .amend(&Amend::new().origin("base.raw", Format::Dmsnap))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChainTooDeep, "{error}");
    // What amend refuses a file that is moved can do.
    let named = CreateOptions::new()
        .size(1 << 20)
        .origin("base.raw", Format::Dmsnap)
        .origin_identity(None, 0);
    Image::create(files.path("moved"), &named).unwrap();
    fs::rename(files.path("moved"), &one).unwrap();
    for writable in [false, true] {
        let options = follow().writable(writable).ignore_origin_uuid(true);
        let (kind, text) = open_error(&one, &options);
        assert_eq!(kind, ErrorKind::ChainTooDeep, "{text}");
    }

    let files = Files::new();
    files.raw("0", 1);
    files.layer("1", "0", Format::Raw);
    for layer in 2..=65 {
        files.layer(&layer.to_string(), &(layer - 1).to_string(), Format::Dmsnap);
    }
    drop(Image::open(files.path("64"), &follow()).unwrap());
    let (kind, text) = open_error(&files.path("65"), &follow());
    assert_eq!(kind, ErrorKind::ChainTooDeep, "{text}");
    let image = Image::open(files.path("64"), &follow().writable(true)).unwrap();
    let error = image.snapshot(files.path("new"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ChainTooDeep, "{error}");
    assert!(!files.path("new").exists());
}

#[test]
fn test_missing_origins_and_names_of_protocols_are_clear_errors() {
    let files = Files::new();
    let base = files.raw("base.raw", 1);
    let layer = files.layer("layer", "base.raw", Format::Raw);
    fs::remove_file(base).unwrap();
    let (kind, text) = open_error(&layer, &follow());
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("base.raw"), "{text}");
    for name in ["nbd://localhost/x", "json:{}", "file:base.raw"] {
        let options = CreateOptions::new().origin(name, Format::Raw);
        let error = Image::create(files.path("new"), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(!files.path("new").exists());
    }
}

#[test]
fn test_what_is_no_image_is_told_apart() {
    let files = Files::new();
    let raw = files.raw("raw", 1);
    let blank = files.path("blank");
    fs::write(&blank, [0; 8192]).unwrap();
    let short = files.path("short");
    fs::write(&short, [1; 100]).unwrap();
    for (path, word) in [(&raw, "SnAp"), (&blank, "blank"), (&short, "100 bytes")] {
        let (kind, text) = open_error(path, &OpenOptions::new());
        assert_eq!(kind, ErrorKind::InvalidFormat, "{text}");
        assert!(
            text.contains(word) && text.contains(path.to_str().unwrap()),
            "{text}"
        );
    }
    let (kind, _) = open_error(&files.path("none"), &OpenOptions::new());
    assert_eq!(kind, ErrorKind::NotFound);
}

#[test]
fn test_an_invalidated_image_is_refused_and_can_be_inspected() {
    let files = Files::new();
    files.raw("base.raw", 1);
    let layer = files.layer("layer", "base.raw", Format::Raw);
    let image = Image::open(&layer, &follow().writable(true)).unwrap();
    image.write(&[1; 100], 0).unwrap();
    image.drop_snapshot().unwrap();
    let mut buf = [0; 1];
    assert_eq!(
        image.read(&mut buf, 0).unwrap_err().kind(),
        ErrorKind::SnapshotInvalid
    );
    drop(image);
    for writable in [false, true] {
        let (kind, text) = open_error(&layer, &follow().writable(writable));
        assert_eq!(kind, ErrorKind::SnapshotInvalid, "{text}");
    }
    let info = inspect(&layer).unwrap();
    assert_eq!(info.status.to_string(), "Invalid");
    assert_eq!(info.virtual_size, SIZE, "the descriptor is kept");
    let error = Image::create(
        files.path("new"),
        &CreateOptions::new().origin("layer", Format::Dmsnap),
    );
    assert_eq!(error.unwrap_err().kind(), ErrorKind::SnapshotInvalid);
}

#[test]
fn test_create_leaves_existing_files_alone() {
    let files = Files::new();
    files.raw("base.raw", 1);
    let before = files.state();
    let create = |options: CreateOptions| {
        Image::create(files.path("base.raw"), &options)
            .unwrap_err()
            .kind()
    };
    assert_eq!(create(CreateOptions::new().size(SIZE)), ErrorKind::Exists);
    let over_itself = CreateOptions::new()
        .origin("base.raw", Format::Raw)
        .create_on_existing(true);
    assert_eq!(create(over_itself), ErrorKind::InvalidArgument);
    let no_size = CreateOptions::new().create_on_existing(true);
    assert_eq!(create(no_size), ErrorKind::InvalidArgument);
    let bad_size = CreateOptions::new().size(1000).create_on_existing(true);
    assert_eq!(create(bad_size), ErrorKind::InvalidArgument);
    let long_name = CreateOptions::new()
        .size(512)
        .origin("x".repeat(1024), Format::Raw);
    assert_eq!(
        create(long_name.origin_identity(None, 0).create_on_existing(true)),
        ErrorKind::InvalidArgument
    );
    assert!(files.state() == before);
    let options = CreateOptions::new().size(SIZE).create_on_existing(true);
    Image::create(files.path("base.raw"), &options).unwrap();
    let image = Image::open(files.path("base.raw"), &OpenOptions::new()).unwrap();
    assert_same(&contents(&image), &vec![0; SIZE as usize], "made anew");
    drop(image);

    let missing = CreateOptions::new().origin("none", Format::Raw);
    assert_eq!(
        Image::create(files.path("new"), &missing)
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
    let nowhere = files.path("none/new");
    let error = Image::create(nowhere, &CreateOptions::new().size(512)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(files.state().len(), 1);
}

#[test]
fn test_files_in_use_are_refused() {
    let files = Files::new();
    let base = files.raw("base.raw", 1);
    let one = files.layer("one", "base.raw", Format::Raw);
    let two = files.layer("two", "base.raw", Format::Raw);
    let writer = Image::open(&one, &follow().writable(true)).unwrap();
    for writable in [false, true] {
        assert_eq!(
            open_error(&one, &follow().writable(writable)).0,
            ErrorKind::Busy
        );
    }
    inspect(&one).unwrap();
    drop(Image::open(&one, &follow().lock(false)).unwrap());
    // Its origin is shared by siblings, until one of them wants to merge.
    let sibling = Image::open(&two, &follow().writable(true)).unwrap();
    writer.write(&[1; 10], 0).unwrap();
    let error = writer.merge(&mut |_| true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.to_string().contains("base.raw"), "{error}");
    let over_writer = CreateOptions::new().origin("one", Format::Dmsnap);
    let error = Image::create(files.path("three"), &over_writer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    drop(sibling);
    writer.merge(&mut |_| true).unwrap();
    assert_eq!(fs::read(&base).unwrap()[..10], [1; 10]);
    let sibling = Image::open(&two, &follow()).unwrap();
    drop((writer, sibling));
}

#[test]
fn test_snapshot_goes_on_in_the_new_file_and_failing_changes_nothing() {
    let files = Files::new();
    files.raw("base.raw", 1);
    let one = files.layer("one", "base.raw", Format::Raw);
    let image = Image::open(&one, &follow().writable(true)).unwrap();
    image.write(&[1; 1000], 5000).unwrap();
    fs::write(files.path("there"), b"content").unwrap();
    let too_small = Some(chunk(512));
    for (name, chunk, kind) in [
        ("there", None, ErrorKind::Exists),
        ("none/new", None, ErrorKind::NotFound),
        ("new", too_small, ErrorKind::InvalidArgument),
    ] {
        let error = image.snapshot(files.path(name), chunk).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    assert_eq!(fs::read(files.path("there")).unwrap(), b"content");
    assert!(!files.path("new").exists());
    image.write(&[2; 1000], 6000).unwrap();
    image.snapshot(files.path("two"), None).unwrap();
    // The old top is an origin now, and others may use it as such.
    let reader = Image::open(&one, &follow()).unwrap();
    image.write(&[3; 1000], 6500).unwrap();
    let mut expected = pattern(1, SIZE as usize);
    expected[5000..6000].fill(1);
    expected[6000..7000].fill(2);
    assert_same(&contents(&reader), &expected, "the frozen layer");
    expected[6500..7500].fill(3);
    image.close().unwrap();
    let descriptor = inspect(files.path("two")).unwrap().descriptor.unwrap();
    assert_eq!(descriptor.origin_name.as_deref(), Some("one"));
    assert_eq!(
        descriptor.origin_uuid,
        inspect(&one).unwrap().descriptor.map(|d| d.uuid)
    );
    let image = Image::open(files.path("two"), &follow()).unwrap();
    assert_same(&contents(&image), &expected, "the new top");
}

#[test]
fn test_amend_changes_what_the_next_open_follows() {
    let files = Files::new();
    files.raw("base.raw", 1);
    files.raw("other.raw", 2);
    let layer = files.layer("layer", "base.raw", Format::Raw);
    let amend = |change: Amend| {
        let options = OpenOptions::new()
            .writable(true)
            .origin(OriginChoice::Zeros);
        Image::open(&layer, &options.bare_size(SIZE))
            .unwrap()
            .amend(&change)
    };
    amend(Amend::new().origin("other.raw", Format::Raw)).unwrap();
    let image = Image::open(&layer, &follow()).unwrap();
    assert_same(
        &contents(&image),
        &pattern(2, SIZE as usize),
        "the other origin",
    );
    drop(image);
    let error = amend(Amend::new().origin("none.raw", Format::Raw)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        amend(Amend::new().add_descriptor(SIZE)).unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
    amend(Amend::new().remove_descriptor()).unwrap();
    assert!(inspect(&layer).unwrap().is_bare());
    let (kind, text) = open_error(&layer, &follow());
    assert_eq!(kind, ErrorKind::OriginRefused, "{text}");
    let error = amend(Amend::new().origin("base.raw", Format::Raw)).unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::InvalidArgument,
        "a bare store records no origin"
    );
    amend(
        Amend::new()
            .add_descriptor(SIZE)
            .origin("base.raw", Format::Raw),
    )
    .unwrap();
    let image = Image::open(&layer, &follow()).unwrap();
    assert_same(
        &contents(&image),
        &pattern(1, SIZE as usize),
        "the first origin",
    );
}

#[test]
fn test_a_longer_layer_makes_a_regular_origin_longer() {
    let files = Files::new();
    let base = files.raw("base.raw", 1);
    let layer = files.layer("layer", "base.raw", Format::Raw);
    let image = Image::open(&layer, &follow().writable(true)).unwrap();
    image.resize(2 * SIZE, false).unwrap();
    image.write(&[1; 1000], 2 * SIZE - 1000).unwrap();
    let expected = contents(&image);
    image.merge(&mut |_| true).unwrap();
    assert_same(&fs::read(&base).unwrap(), &expected, "the origin");
    image.close().unwrap();
    let length = fs::metadata(&layer).unwrap().len();
    assert!(
        length <= 2 * 16384,
        "the layer gave its space back: {length}"
    );
    assert!(check(&layer, &CheckOptions::new()).unwrap().is_clean());
}
