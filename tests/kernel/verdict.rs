//! What the kernel says of many stores as they lie: each is loaded, read and let go.
#![allow(dead_code, reason = "each test program uses a part of it")]

use crate::guest::{Answer, Guest, hash};

const SECTOR: u64 = 512;
/// Stores that are looked at in one message: the driver has room for two devices each, and some more.
const SLOTS: usize = 30;

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

/// Their verdicts, in the same order. Stores of one size next to each other share devices, which takes a fraction of the time.
#[track_caller]
pub(crate) fn on(guest: &mut Guest, stores: &[Lying]) -> Vec<Verdict> {
    let same_size = |one: &Lying, other: &Lying| {
        (one.cow.len(), one.origin.len()) == (other.cow.len(), other.origin.len())
    };
    let groups = stores.chunk_by(same_size);
    groups.flat_map(|group| on_group(guest, group)).collect()
}

fn on_group(guest: &mut Guest, stores: &[Lying]) -> Vec<Verdict> {
    guest.clear();
    let slots = Slots::for_stores(guest, stores);
    let batches = stores.chunks(slots.places.len());
    let verdicts = batches.flat_map(|batch| slots.judge(guest, batch));
    let verdicts = verdicts.collect();
    slots.remove(guest);
    verdicts
}

/// Devices `o0`, `c0` and so on for origins and COW devices of one size, and `s` for the snapshot of one after the other.
struct Slots {
    /// Where origin and COW device are on the shared disk.
    places: Vec<(u64, u64)>,
}

/// What `s` is in between. Loading a snapshot of devices that still have one would take that over.
const NOTHING: [&str; 2] = ["load s 0 8 error", "resume s"];

impl Slots {
    fn for_stores(guest: &mut Guest, stores: &[Lying]) -> Self {
        let origin = stores[0].origin.len() as u64 / SECTOR;
        let cow = stores[0].cow.len() as u64 / SECTOR;
        let mut places = Vec::new();
        let mut commands = vec!["create s 0 8 error".to_owned()];
        while places.len() < stores.len().min(SLOTS) && guest.has_room(origin + cow) {
            let (number, place) = (places.len(), (guest.reserve(origin), guest.reserve(cow)));
            let (below, top) = place;
            commands.push(format!("create o{number} 0 {origin} linear @disk {below}"));
            commands.push(format!("create c{number} 0 {cow} linear @disk {top}"));
            places.push(place);
        }
        assert!(!places.is_empty(), "a store has no room");
        guest.ask_all(&commands);
        Self { places }
    }

    fn judge(&self, guest: &mut Guest, stores: &[Lying]) -> Vec<Verdict> {
        let mut commands = Vec::new();
        for (number, (store, &(origin, cow))) in stores.iter().zip(&self.places).enumerate() {
            guest.put(origin, &store.origin);
            guest.put(cow, &store.cow);
            commands.extend(commands_for(store, number));
        }
        let judged = commands.len();
        commands.extend(NOTHING.map(str::to_owned));
        let answers = guest.ask(&commands);
        let judged = answers[..judged].chunks(COMMANDS);
        let pairs = stores.iter().zip(judged);
        pairs
            .map(|(store, answers)| verdict(store, answers))
            .collect()
    }

    fn remove(self, guest: &mut Guest) {
        let mut commands = vec!["remove s".to_owned()];
        for number in 0..self.places.len() {
            commands.push(format!("remove o{number}"));
            commands.push(format!("remove c{number}"));
        }
        guest.ask_all(&commands);
    }
}

const COMMANDS: usize = 5;

fn commands_for(store: &Lying, slot: usize) -> [String; COMMANDS] {
    let (length, chunk) = (store.origin.len() as u64 / SECTOR, store.chunk);
    [
        format!("load s 0 {length} snapshot @o{slot} @c{slot} PO {chunk}"),
        "resume s".into(),
        "status s".into(),
        "hash s".into(),
        format!("hash c{slot}"),
    ]
}

/// A store that was refused leaves the one before it active.
fn verdict(store: &Lying, answers: &[Answer]) -> Verdict {
    let [loaded, resumed, status, view, after] = answers else {
        panic!("answers to {COMMANDS} commands: {answers:?}");
    };
    assert!(resumed.is_ok() && after.is_ok(), "the kernel: {answers:?}");
    Verdict {
        status: loaded.clone().and(status.clone()),
        view: loaded.clone().and(view.clone()).ok(),
        untouched: *after == Ok(hash(&store.cow)),
    }
}
