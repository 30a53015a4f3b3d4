//! Cases over stores that the kernel made, and over damaged ones.

use std::ffi::OsStr;
use std::fs;
use std::process::Output;

use dmsnap::ErrorKind;

use crate::library::{self, sha256};
use crate::pair::Pair;
use crate::shapes;
use crate::stores::{self, Store};
use crate::together::{Case, Desk};
use crate::tool;
use crate::twins::{self, Twin, Verdict};

/// We go on with every kernel-made store, the kernel goes on after us, and we merge.
pub(crate) fn continued() -> Vec<Case> {
    let shapes = shapes::all();
    let stores = shapes.iter().flat_map(|shape| {
        let names = shape.cows.iter().map(|cow| shape.store_name(cow));
        names.collect::<Vec<String>>()
    });
    stores.map(|name| Case::new(name, go_on)).collect()
}

fn go_on(desk: &Desk<'_>) {
    let mut made = stores::kernel_made().iter();
    let store = made.find(|store| store.name == desk.name).unwrap();
    let (cow, origin) = (
        fs::read(&store.cow).unwrap(),
        fs::read(&store.origin).unwrap(),
    );
    let opened = library::open(&library::memory(&cow), &library::memory(&origin), false);
    let Some(view) = &store.view else {
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::SnapshotInvalid);
        let error = library::open_path(&store.cow, &store.origin, false);
        assert!(error.unwrap_err().to_string().contains("invalid"));
        let status = dmsnap::inspect(&store.cow).unwrap().status;
        assert_eq!(status.to_string(), store.status);
        let output = convert(desk, store);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && errors.contains("invalid"),
            "{errors}"
        );
        return;
    };
    assert!(convert(desk, store).status.success());
    let converted = fs::read(desk.directory.join("out.raw")).unwrap();
    assert_eq!(&sha256(&converted), view);
    let image = opened.unwrap();
    let bytes = library::view(&image);
    assert_eq!(&sha256(&bytes), view);
    assert_eq!(image.status().to_string(), store.status);
    let mut pair = Pair::copy(desk, &store.origin, &store.cow, bytes);
    pair.ours(|pair, image| pair.scribble(image, 12));
    pair.theirs(desk, |pair| pair.kernel_writes(4));
    pair.merge_by_tool();
}

fn convert(desk: &Desk<'_>, store: &Store) -> Output {
    let mut arguments: Vec<&OsStr> = vec!["convert".as_ref(), "--origin".as_ref()];
    arguments.push(store.origin.as_ref());
    arguments.extend(["-O".as_ref(), "raw".as_ref(), store.cow.as_os_str()]);
    arguments.push("out.raw".as_ref());
    tool::run(desk.directory, &arguments)
}

/// The kernel judges the damaged twins of golden stores, too.
pub(crate) fn twins() -> Vec<Case> {
    let mut twins = twins::all();
    twins.retain(|twin| !matches!(twin.verdict, Verdict::RefusedByUs(_)));
    assert!(twins.len() >= 20, "{}", twins.len());
    twins
        .into_iter()
        .map(|twin| Case::new(twin.name.clone(), move |desk| judge(desk, &twin)))
        .collect()
}

fn judge(desk: &Desk<'_>, twin: &Twin) {
    let (origin, cow) = (desk.directory.join("origin"), desk.directory.join("cow"));
    fs::write(&origin, &twin.origin).unwrap();
    fs::write(&cow, &twin.cow).unwrap();
    let scenario = crate::scenario::Scenario::new(desk.name)
        .disk("origin", &origin)
        .disk("cow", &cow);
    let chunk = twin.chunk;
    match &twin.verdict {
        Verdict::Shows(view) => {
            let scenario = scenario.script(&format!(
                "snapshot s $origin $cow PO {chunk}
                 field view $(hash s); field status \"$(status s)\""
            ));
            let outcome = desk.kernel(scenario);
            assert_eq!(outcome.field("view"), sha256(view));
            let (cow, origin) = (library::memory(&twin.cow), library::memory(&twin.origin));
            let image = library::open(&cow, &origin, false).unwrap();
            assert_eq!(outcome.field("status"), image.status().to_string());
        }
        _ => {
            desk.kernel(scenario.script(&format!("fails snapshot s $origin $cow PO {chunk}")));
        }
    }
}
