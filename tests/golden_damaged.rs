//! Golden stores with one field damaged: the library takes what is harmless, with the right content,
//! and refuses the rest by the right kind of error. `tests/kernel` lets the kernel judge them too.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "common/golden.rs"]
mod golden;
#[path = "common/library.rs"]
mod library;
#[path = "common/pattern.rs"]
mod pattern;
#[path = "common/reference.rs"]
mod reference;
#[path = "common/twins.rs"]
mod twins;

use dmsnap::store::FindingKind;
use library::{assert_same, bytes_of, memory, open, view};
use reference::Reference;
use twins::{Twin, Verdict};

#[test]
fn twins_are_taken_or_refused_by_kind() {
    for Twin {
        name,
        origin,
        cow,
        verdict,
        ..
    } in twins::all()
    {
        let (storage, origin) = (memory(&cow), memory(&origin));
        let opened = open(&storage, &origin, false);
        match verdict {
            Verdict::Refused(kind) | Verdict::RefusedByUs(kind) => {
                let error = opened.expect_err(&name);
                assert_eq!(error.kind(), kind, "{name}: {error}");
                let error = open(&storage, &origin, true).expect_err(&name);
                assert_eq!(error.kind(), kind, "{name}, to write: {error}");
            }
            Verdict::Shows(content) => {
                let image = opened.expect(&name);
                assert_same(&view(&image), &content, &name);
                let status = Reference::load(&cow).unwrap().status();
                assert_eq!(image.status().to_string(), status, "{name}");
            }
        }
        assert!(bytes_of(&storage) == cow, "{name}: it was changed");
    }
}

/// A check goes on where opening gives up, unless there is no store at all.
#[test]
fn checks_name_the_damage() {
    for Twin {
        name, cow, verdict, ..
    } in twins::all()
    {
        let found = library::check(&cow);
        match verdict {
            Verdict::Refused(kind) | Verdict::RefusedByUs(kind) => match found {
                Ok(outcome) => {
                    assert!(
                        outcome.report.corruptions > 0,
                        "{name}: {:?}",
                        outcome.report
                    );
                }
                // Nothing can be said about areas whose place is not known.
                Err(error) => {
                    assert_eq!(error.kind(), kind, "{name}");
                    let header = ["magic", "version", "chunk size", "shorter"];
                    assert!(header.iter().any(|word| name.contains(word)), "{name}");
                }
            },
            Verdict::Shows(_) => {
                let outcome = found.expect(&name);
                assert_eq!(
                    outcome.report.corruptions, 0,
                    "{name}: {:?}",
                    outcome.report
                );
            }
        }
    }
    let kinds = |name: &str| -> Vec<FindingKind> {
        let mut twins = twins::all();
        twins.retain(|twin| twin.name.ends_with(name));
        let outcome = library::check(&twins[0].cow).unwrap();
        let kinds = outcome.report.findings.iter().map(|finding| finding.kind);
        // A chunk that a damaged record does not name any more is one.
        kinds.filter(|kind| *kind != FindingKind::Leak).collect()
    };
    assert_eq!(kinds(", a stale slot"), [FindingKind::StaleSlots]);
    assert_eq!(kinds("half dropped"), [FindingKind::RepeatedRecord]);
    assert_eq!(kinds("old chunk twice"), [FindingKind::DuplicateOldChunk]);
    assert_eq!(kinds("new chunk twice"), [FindingKind::SharedNewChunk]);
    assert_eq!(kinds("first area"), [FindingKind::IllegalNewChunk]);
    assert_eq!(kinds("behind a full area"), [FindingKind::MissingArea]);
    assert_eq!(kinds("valid 0"), [FindingKind::Invalid]);
}

/// Whatever a harmless twin has, a writer leaves a store that the plain rules read.
#[test]
fn harmless_twins_can_be_written() {
    let mut written = 0;
    for Twin {
        name,
        origin,
        cow,
        verdict,
        ..
    } in twins::all()
    {
        let Verdict::Shows(mut content) = verdict else {
            continue;
        };
        written += 1;
        let storage = memory(&cow);
        let image = open(&storage, &memory(&origin), true).expect(&name);
        let before = image.exceptions();
        for start in (0..content.len()).step_by(content.len() / 5 + 1) {
            let end = content.len().min(start + 700);
            content[start..end].fill(0x77);
            image
                .write(&content[start..end], start as u64)
                .expect(&name);
        }
        assert_ne!(image.exceptions(), before, "{name}: nothing new");
        image.close().expect(&name);

        let bytes = bytes_of(&storage);
        assert_eq!(bytes[..16], cow[..16], "{name}: header");
        if name.contains("foreign") {
            assert_eq!(bytes[16..4096], cow[16..4096], "{name}");
        }
        let mut store = Reference::load(&bytes).expect(&name);
        // What lies past the end of the disk shows nothing.
        let chunks = (content.len() as u64 / 512).div_ceil(store.chunk);
        store.records.retain(|&(old, _)| old < chunks);
        let found = store.view(&origin, &bytes).expect(&name);
        assert_same(&found, &content, &name);
        let reopened = open(&storage, &memory(&origin), false).expect(&name);
        assert_same(&view(&reopened), &content, &name);
        let left = library::check(&bytes).expect(&name);
        let left = left.report.findings.iter();
        let stale = |kind| [FindingKind::StaleSlots, FindingKind::RepeatedRecord].contains(&kind);
        assert_eq!(left.filter(|f| stale(f.kind)).count(), 0, "{name}");
    }
    assert!(written >= 13, "{written}");
}
