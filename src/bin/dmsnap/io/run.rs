//! Carrying out the commands of `dmsnap io`.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::Duration;

use dmsnap::{ByteRange, Image};

use super::command::{Command, Expect};
use crate::failure::{Failure, Result};
use crate::output;

/// Bytes that are read or written at once: memory must not follow the length somebody types.
const PIECE: u64 = 4 << 20;

/// Bytes in a line of a dump.
const LINE: usize = 16;

pub(super) fn run(image: &Image, command: &Command) -> Result<()> {
    match *command {
        Command::Read {
            range,
            expect,
            is_dumped,
            is_quiet,
        } => {
            check_bounds(image, range)?;
            read(image, range, expect, is_dumped)?;
            say(is_quiet, "read", range)
        }
        Command::Write {
            range,
            pattern,
            is_flushed,
            is_quiet,
        } => {
            check_bounds(image, range)?;
            let buf = vec![pattern; range.len.min(PIECE) as usize];
            for piece in pieces(range) {
                image.write(&buf[..piece.len as usize], piece.start)?;
            }
            flush_if(image, is_flushed)?;
            say(is_quiet, "wrote", range)
        }
        Command::WriteZeroes {
            range,
            unmap,
            is_flushed,
            is_quiet,
        } => {
            image.write_zeroes(range, unmap)?;
            flush_if(image, is_flushed)?;
            say(is_quiet, "wrote", range)
        }
        Command::Discard { range, is_quiet } => {
            image.discard(range)?;
            say(is_quiet, "discard", range)
        }
        Command::Flush => Ok(image.flush()?),
        Command::Truncate(size) => Ok(image.resize(size, true)?),
        Command::Length => output::line(image.size()),
        Command::Status => output::line(image.status()),
        Command::Sleep(milliseconds) => {
            sleep(Duration::from_millis(milliseconds));
            Ok(())
        }
        Command::Quit => Ok(()),
    }
}

/// A command that reaches past the end must not be carried out in part.
fn check_bounds(image: &Image, range: ByteRange) -> Result<()> {
    let size = image.size();
    if range.end() <= size {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{range}: past the end, the disk has {size} bytes"
    )))
}

fn flush_if(image: &Image, is_flushed: bool) -> Result<()> {
    if is_flushed {
        Ok(image.flush()?)
    } else {
        Ok(())
    }
}

/// Printed at once, so that who reads our output knows what is done when we are killed.
fn say(is_quiet: bool, what: &str, range: ByteRange) -> Result<()> {
    if is_quiet {
        return Ok(());
    }
    let ByteRange { start, len } = range;
    output::line(format_args!("{what} {len}/{len} bytes at offset {start}"))
}

fn pieces(range: ByteRange) -> impl Iterator<Item = ByteRange> {
    let starts = (range.start..range.end()).step_by(PIECE as usize);
    starts.map(move |start| ByteRange::new(start, PIECE.min(range.end() - start)))
}

fn read(image: &Image, range: ByteRange, expect: Option<Expect>, is_dumped: bool) -> Result<()> {
    let mut buf = vec![0; range.len.min(PIECE) as usize];
    for piece in pieces(range) {
        let bytes = &mut buf[..piece.len as usize];
        image.read(bytes, piece.start)?;
        if is_dumped {
            dump(bytes, piece.start)?;
        }
        if let Some(expect) = expect {
            verify(bytes, piece.start, expect)?;
        }
    }
    Ok(())
}

fn verify(bytes: &[u8], start: u64, expect: Expect) -> Result<()> {
    let wrong = bytes.iter().zip(start..).find(|&(&byte, at)| {
        (expect.range.start..expect.range.end()).contains(&at) && byte != expect.pattern
    });
    match wrong {
        None => Ok(()),
        Some((byte, at)) => Err(Failure::new(format!(
            "pattern verification failed at offset {at}: found {byte:#04x}, expected {:#04x}",
            expect.pattern
        ))),
    }
}

fn dump(bytes: &[u8], start: u64) -> Result<()> {
    for (line, at) in bytes.chunks(LINE).zip((start..).step_by(LINE)) {
        let mut text = format!("{at:08x}: ");
        for byte in line {
            // Writing to a string cannot fail.
            let _ = write!(text, " {byte:02x}");
        }
        let pad = 3 * (LINE - line.len());
        let ascii: String = line
            .iter()
            .map(|&byte| {
                if byte.is_ascii_graphic() || byte == b' ' {
                    byte as char
                } else {
                    '.'
                }
            })
            .collect();
        output::line(format_args!("{text}{:pad$}  {ascii}", ""))?;
    }
    Ok(())
}
