//! Stores made by the kernel: the shapes of `shapes.rs`, run in one boot.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::pattern;
use crate::scenario::{Outcome, Scenario};
use crate::shapes::{self, Cow, Shape};
use crate::vm;

/// One COW file that the kernel wrote, and what the kernel says about it.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) name: String,
    /// Sectors per chunk.
    pub(crate) chunk: u32,
    pub(crate) origin: PathBuf,
    /// The origin is still `pattern::sectors(seed, 0, origin_sectors)`; `None` if it was written.
    pub(crate) origin_seed: Option<u16>,
    pub(crate) origin_sectors: u64,
    pub(crate) cow: PathBuf,
    /// SHA-256 of the snapshot device, freshly loaded; `None` if it is invalid and unreadable.
    pub(crate) view: Option<String>,
    /// Status of the snapshot, freshly loaded.
    pub(crate) status: String,
    /// Status before it was detached.
    pub(crate) live_status: String,
}

/// All kernel-made stores; the first call boots the kernel.
pub(crate) fn kernel_made() -> &'static [Store] {
    static MADE: OnceLock<(TempDir, Vec<Store>)> = OnceLock::new();
    let (_, stores) = MADE.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let stores = make(directory.path(), &shapes::all());
        (directory, stores)
    });
    stores
}

/// Has the kernel make the stores of `shapes`, with their files in `directory`.
pub(crate) fn make(directory: &Path, shapes: &[Shape]) -> Vec<Store> {
    let scenarios: Vec<Scenario> = shapes
        .iter()
        .map(|shape| prepare(directory, shape))
        .collect();
    let outcomes = vm::run(&scenarios);
    let made = shapes.iter().zip(&outcomes);
    made.flat_map(|(shape, outcome)| {
        shape
            .cows
            .iter()
            .map(|cow| store(directory, shape, cow, outcome))
    })
    .collect()
}

fn origin_path(directory: &Path, shape: &Shape) -> PathBuf {
    directory.join(format!("{}.origin", shape.name))
}

fn cow_path(directory: &Path, shape: &Shape, cow: &Cow) -> PathBuf {
    directory.join(format!("{}.cow", shape.store_name(cow)))
}

/// Makes origin and COW files, and the scenario that ends with a look at every store.
fn prepare(directory: &Path, shape: &Shape) -> Scenario {
    let origin = origin_path(directory, shape);
    fs::write(
        &origin,
        pattern::sectors(shape.seed, 0, shape.origin_sectors),
    )
    .unwrap();
    let mut scenario = Scenario::new(&shape.name)
        .disk("origin", &origin)
        .script(&shape.script);
    for cow in &shape.cows {
        let path = cow_path(directory, shape, cow);
        let mut content = Vec::new();
        if let Some(seed) = cow.garbage {
            content = pattern::sectors(seed, 0, cow.sectors);
            content[..4096].fill(0);
        }
        fs::write(&path, content).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(cow.sectors * 512)
            .unwrap();
        scenario = scenario.disk(cow.name, &path).script(&format!(
            "examine {0} $origin ${0} {1}",
            cow.name, cow.chunk
        ));
    }
    scenario
}

fn store(directory: &Path, shape: &Shape, cow: &Cow, outcome: &Outcome) -> Store {
    let origin = origin_path(directory, shape);
    let untouched = pattern::sectors(shape.seed, 0, shape.origin_sectors);
    let field = |key: &str| outcome.field(&format!("{}.{key}", cow.name)).to_owned();
    let view = field("view");
    if let Some(live) = outcome.fields.get(&format!("{}.live_view", cow.name)) {
        assert_eq!(
            live, &view,
            "{}: loading it again changed the view",
            shape.name
        );
    }
    Store {
        name: shape.store_name(cow),
        chunk: cow.chunk,
        origin_seed: (fs::read(&origin).unwrap() == untouched).then_some(shape.seed),
        origin,
        origin_sectors: shape.origin_sectors,
        cow: cow_path(directory, shape, cow),
        view: (view != "unreadable").then_some(view),
        status: field("status"),
        live_status: field("live_status"),
    }
}
