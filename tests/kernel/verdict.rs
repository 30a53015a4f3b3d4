//! What the kernel says of many stores as they lie: each is loaded, read and let go.
#![allow(dead_code, reason = "each test program uses a part of it")]

use crate::guest::{Answer, Guest, hash};

const SECTOR: u64 = 512;
/// Answers and content of that many stores have room at once.
const BATCH: usize = 200;

/// A store over its origin, whole sectors both.
#[derive(Clone, Debug)]
pub(crate) struct Lying {
    pub(crate) cow: Vec<u8>,
    pub(crate) origin: Vec<u8>,
    /// Sectors per chunk in the table.
    pub(crate) chunk: u64,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The status of the snapshot, or the errno with which it was refused.
    pub(crate) status: Answer,
    /// [`hash`] of what the snapshot shows; `None` if it was refused or could not be read.
    pub(crate) view: Option<String>,
    /// Whether loading and reading has left every byte of the store as it was.
    pub(crate) untouched: bool,
}

/// Their verdicts, in the same order.
#[track_caller]
pub(crate) fn on(guest: &mut Guest, stores: &[Lying]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let mut left = stores;
    while !left.is_empty() {
        guest.clear();
        let mut commands = Vec::new();
        let mut count = 0;
        for store in left.iter().take(BATCH) {
            let sectors = (store.cow.len() + store.origin.len()) as u64 / SECTOR;
            if !guest.has_room(sectors) && count > 0 {
                break;
            }
            commands.extend(commands_for(guest, store));
            count += 1;
        }
        let answers = guest.ask(&commands);
        let batch = left.iter().zip(answers.chunks(COMMANDS));
        verdicts.extend(batch.map(|(store, answers)| verdict(store, answers)));
        left = &left[count..];
    }
    verdicts
}

const COMMANDS: usize = 9;

fn commands_for(guest: &mut Guest, store: &Lying) -> [String; COMMANDS] {
    let device = |guest: &mut Guest, name: &str, bytes: &[u8]| {
        let (at, sectors) = (guest.place(bytes), bytes.len() as u64 / SECTOR);
        format!("create {name} 0 {sectors} linear @disk {at}")
    };
    let (length, chunk) = (store.origin.len() as u64 / SECTOR, store.chunk);
    [
        device(guest, "o", &store.origin),
        device(guest, "c", &store.cow),
        format!("create s 0 {length} snapshot @o @c PO {chunk}"),
        "status s".into(),
        "hash s".into(),
        "remove s".into(),
        "hash c".into(),
        "remove c".into(),
        "remove o".into(),
    ]
}

fn verdict(store: &Lying, answers: &[Answer]) -> Verdict {
    let [
        origin,
        cow,
        created,
        status,
        view,
        _,
        after,
        no_cow,
        no_origin,
    ] = answers
    else {
        panic!("answers to {COMMANDS} commands: {answers:?}");
    };
    for answer in [origin, cow, after, no_cow, no_origin] {
        assert!(answer.is_ok(), "devices of the kernel: {answers:?}");
    }
    Verdict {
        status: created.clone().and(status.clone()),
        view: view.clone().ok(),
        untouched: *after == Ok(hash(&store.cow)),
    }
}
