//! Cases over stores that the kernel made, and over damaged ones.

use std::ffi::OsStr;
use std::fs;
use std::process::Output;

use dmsnap::ErrorKind;

use crate::golden;
use crate::guest::{Guest, hash};
use crate::library::{self, sha256};
use crate::pair::Pair;
use crate::reference::Reference;
use crate::shapes;
use crate::stores::{self, Store};
use crate::together::{Case, Desk};
use crate::tool;
use crate::twins;
use crate::verdict::{self, Lying, Verdict};

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

/// The kernel judges the golden stores and their damaged twins.
pub(crate) fn judged(guest: &mut Guest) {
    for (golden, verdict) in judge(guest, golden::all(), |golden| Lying {
        cow: golden.cow.clone(),
        origin: golden.origin.clone(),
        chunk: golden.chunk.into(),
    }) {
        let store = Reference::load(&golden.cow).unwrap();
        let view = store.view(&golden.origin, &golden.cow).ok();
        assert_eq!(verdict.status, Ok(golden.status), "{}", golden.name);
        assert_eq!(
            verdict.view,
            view.map(|view| hash(&view)),
            "{}",
            golden.name
        );
        assert!(verdict.untouched, "{}", golden.name);
    }
    let mut twins = twins::all();
    twins.retain(|twin| !matches!(twin.verdict, twins::Verdict::RefusedByUs(_)));
    assert!(twins.len() >= 20, "{}", twins.len());
    for (twin, verdict) in judge(guest, twins, |twin| Lying {
        cow: twin.cow.clone(),
        origin: twin.origin.clone(),
        chunk: twin.chunk.into(),
    }) {
        let twins::Verdict::Shows(view) = &twin.verdict else {
            assert!(verdict.status.is_err(), "{}: {verdict:?}", twin.name);
            continue;
        };
        let (cow, origin) = (library::memory(&twin.cow), library::memory(&twin.origin));
        let image = library::open(&cow, &origin, false).unwrap();
        assert_eq!(
            verdict.status,
            Ok(image.status().to_string()),
            "{}",
            twin.name
        );
        assert_eq!(verdict.view, Some(hash(view)), "{}", twin.name);
        assert!(verdict.untouched, "{}", twin.name);
    }
}

fn judge<S>(guest: &mut Guest, stores: Vec<S>, lying: impl Fn(&S) -> Lying) -> Vec<(S, Verdict)> {
    let given: Vec<Lying> = stores.iter().map(lying).collect();
    let verdicts = verdict::on(guest, &given);
    stores.into_iter().zip(verdicts).collect()
}
