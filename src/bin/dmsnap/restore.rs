//! `dmsnap restore`

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dmsnap::storage::{FileOptions, LockMode, SharedStorage};
use dmsnap::{ErrorKind, RestoreOptions, write_metadata};
use serde::Deserialize;

use crate::failure::{About, Failure, Result};
use crate::metadata::Metadata;
use crate::output;

/// Write metadata back that `dump --output json` printed, perhaps mended by hand
#[derive(clap::Args)]
#[command(after_help = "\
Of the JSON only what stands under \"metadata\" is read: header, slots of the descriptor and areas. They are written to FILE, zeros \
where nothing is said; all else in FILE stays, the data above all. FILE is the file that was dumped, or a copy of it. Checked before \
anything is written: records must be legal in FILE and not contradict each other.")]
pub(crate) struct Args {
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Write even if FILE holds a valid store, whose metadata is lost then
    #[arg(long)]
    overwrite: bool,
    /// Write even what makes a damaged store
    #[arg(long)]
    damaged: bool,
    /// The JSON; - is standard input
    #[arg(value_name = "JSON")]
    json: PathBuf,
    /// The file to write to; must exist
    file: PathBuf,
}

/// What `dump` prints. The rest of it is for people.
#[derive(Deserialize)]
struct Dump {
    metadata: Metadata,
}

pub(crate) fn run(args: &Args) -> Result<u8> {
    let text = read(&args.json)?;
    let dump: Dump = serde_json::from_str(&text).map_err(|error| {
        Failure::at(
            &args.json,
            format!("not what `dmsnap dump --output json` prints: {error}"),
        )
    })?;
    let raw = dump.metadata.to_raw(&args.json)?;
    let options = RestoreOptions::new()
        .overwrite(args.overwrite)
        .damaged(args.damaged);
    write(&args.file, &raw, &options)?;
    if !args.quiet {
        let records: u64 = raw
            .areas
            .iter()
            .flat_map(|area| &area.runs)
            .map(|run| run.count)
            .sum();
        output::line(format_args!(
            "Wrote {} in {} to '{}'",
            output::count(records, "record"),
            output::count(raw.areas.len() as u64, "area"),
            args.file.display()
        ))?;
    }
    Ok(0)
}

fn read(path: &Path) -> Result<String> {
    if path != Path::new("-") {
        return fs::read_to_string(path).about(path);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).about(path)?;
    Ok(text)
}

fn write(path: &Path, raw: &dmsnap::store::RawMetadata, options: &RestoreOptions) -> Result<()> {
    let file = FileOptions::new()
        .writable(true)
        .lock(LockMode::None)
        .open(path)
        .about(path)?;
    let storage: SharedStorage = Arc::new(file);
    write_metadata(&storage, raw, options).map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::Exists => "say --overwrite, if that is what you want; keep a copy.",
            ErrorKind::Corrupt => "say --damaged, if that is what you want.",
            _ => return Failure::from(error).named(path),
        };
        Failure::from(error).named(path).with_hint(hint)
    })
}
