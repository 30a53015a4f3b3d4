//! What becomes of one store.

use dmsnap::storage::SharedStorage;
use dmsnap::{CheckOptions, CheckOutcome, Error, Image, Repair};

use crate::library::{bytes_of, memory, open, view};
use crate::reference::Reference;
use crate::stores::Store;

/// One cell for each column of the table.
pub(crate) fn of(store: &Store) -> [String; 6] {
    [
        opened(store),
        read(store),
        written(store),
        merged(store),
        checked(store),
        repaired(store),
    ]
}

fn kind(error: &Error) -> String {
    format!("{:?}", error.kind())
}

fn fresh(store: &Store) -> (SharedStorage, SharedStorage) {
    (memory(&store.cow), memory(&store.origin))
}

fn opened(store: &Store) -> String {
    let (cow, origin) = fresh(store);
    let found = match open(&cow, &origin, false) {
        Ok(image) if image.warnings().is_empty() => "opens".to_owned(),
        Ok(_) => "opens, warns".to_owned(),
        Err(error) => kind(&error),
    };
    assert!(
        bytes_of(&cow) == store.cow,
        "{}: opening changed it",
        store.name
    );
    found
}

fn read(store: &Store) -> String {
    let (cow, origin) = fresh(store);
    let Ok(image) = open(&cow, &origin, false) else {
        return "-".to_owned();
    };
    let found = view(&image);
    assert!(
        found == expected(store, &image),
        "{}: another content",
        store.name
    );
    "right".to_owned()
}

/// By the plain rules; what lies past the end of the disk shows nothing, a record that stands twice counts once.
fn expected(store: &Store, image: &Image) -> Vec<u8> {
    let mut reference = Reference::load(&store.cow).unwrap();
    let chunks = image.size().div_ceil(reference.chunk * 512);
    reference.records.retain(|&(old, _)| old < chunks);
    let mut seen = std::collections::HashSet::new();
    reference.records.retain(|record| seen.insert(*record));
    let mut disk = store.origin.clone();
    disk.resize(image.size() as usize, 0);
    reference.view(&disk, &store.cow).unwrap()
}

fn written(store: &Store) -> String {
    let (cow, origin) = fresh(store);
    let image = match open(&cow, &origin, true) {
        Ok(image) => image,
        Err(error) => return kind(&error),
    };
    let mut content = view(&image);
    for start in (0..content.len()).step_by(content.len() / 5 + 1) {
        let end = content.len().min(start + 700);
        content[start..end].fill(0x77);
        if let Err(error) = image.write(&content[start..end], start as u64) {
            return kind(&error);
        }
    }
    image.close().unwrap();
    let again = open(&cow, &origin, false).unwrap();
    assert!(
        view(&again) == content,
        "{}: not what was written",
        store.name
    );
    "ok".to_owned()
}

fn merged(store: &Store) -> String {
    let (cow, origin) = fresh(store);
    let image = match open(&cow, &origin, true) {
        Ok(image) => image,
        Err(error) => return kind(&error),
    };
    let content = view(&image);
    if let Err(error) = image.merge(&mut |_| true) {
        return kind(&error);
    }
    assert_eq!(image.exceptions(), [], "{}", store.name);
    assert!(
        bytes_of(&origin)[..content.len()] == content,
        "{}: the origin",
        store.name
    );
    "ok".to_owned()
}

/// Corruptions, repairable findings and leaks, as far as there are any.
fn findings(corruptions: u64, repairable: u64, leaks: u64) -> String {
    let counts = [
        (corruptions, "corrupt"),
        (repairable, "repairable"),
        (leaks, "leaked"),
    ];
    let told: Vec<String> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if told.is_empty() {
        "clean".to_owned()
    } else {
        told.join(", ")
    }
}

/// In a file, whose holes a check asks for.
fn check(store: &Store, repair: Repair) -> (String, Vec<u8>, Option<CheckOutcome>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &store.cow).unwrap();
    let found = dmsnap::check(file.path(), &CheckOptions::new().repair(repair));
    let bytes = std::fs::read(file.path()).unwrap();
    match found {
        Ok(outcome) => {
            let left = findings(
                outcome.remaining_corruptions,
                outcome.remaining_repairable,
                outcome.remaining_leaks,
            );
            (left, bytes, Some(outcome))
        }
        Err(error) => (kind(&error), bytes, None),
    }
}

fn checked(store: &Store) -> String {
    let (found, bytes, outcome) = check(store, Repair::None);
    assert!(bytes == store.cow, "{}: a check changed it", store.name);
    assert!(outcome.is_none_or(|outcome| outcome.repaired == 0 && outcome.repaired_leaks == 0));
    found
}

/// Whatever a repair does, what can be read stays the same.
fn repaired(store: &Store) -> String {
    let (left, bytes, _) = check(store, Repair::All);
    let contents =
        |cow: &[u8]| open(&memory(cow), &memory(&store.origin), false).map(|image| view(&image));
    if let Ok(before) = contents(&store.cow) {
        let after = contents(&bytes).unwrap();
        assert!(
            before == after,
            "{}: the repair changed what it shows",
            store.name
        );
    }
    if bytes == store.cow {
        format!("{left}, untouched")
    } else {
        left
    }
}
