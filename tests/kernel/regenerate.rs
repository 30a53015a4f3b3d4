//! Writes the golden files from freshly made stores.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use flate2::{Compression, GzBuilder};

use crate::stores::Store;

const COLUMNS: &str = "# name\tsectors per chunk\torigin\tits sectors\tstatus when loaded\t\
                       status when left\tSHA-256 of the snapshot\n";

/// Replaces all golden files in `directory`.
pub(crate) fn write(directory: &Path, stores: &[Store]) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "gz") {
            fs::remove_file(path).unwrap();
        }
    }
    let mut index = String::from(COLUMNS);
    for store in stores {
        let origin = match store.origin_seed {
            Some(seed) => format!("seed {seed}"),
            None => {
                let file = store.origin.file_name().unwrap().to_string_lossy();
                pack(&store.origin, &directory.join(format!("{file}.gz")));
                format!("{file}.gz")
            }
        };
        pack(
            &store.cow,
            &directory.join(format!("{}.cow.gz", store.name)),
        );
        let Store {
            name,
            chunk,
            origin_sectors,
            status,
            live_status,
            ..
        } = store;
        let view = store.view.as_deref().unwrap_or("unreadable");
        writeln!(
            index,
            "{name}\t{chunk}\t{origin}\t{origin_sectors}\t{status}\t{live_status}\t{view}"
        )
        .unwrap();
    }
    fs::write(directory.join("index.tsv"), index).unwrap();
}

/// Compresses without time and name, so that the same content gives the same file.
fn pack(from: &Path, to: &Path) {
    let mut packer = GzBuilder::new().write(Vec::new(), Compression::best());
    packer.write_all(&fs::read(from).unwrap()).unwrap();
    fs::write(to, packer.finish().unwrap()).unwrap();
}
