//! The language of `dmsnap io`.

use dmsnap::ByteRange;
use dmsnap::units::MAX_FILE_SIZE;

use crate::size::parse_size;

pub(super) const HELP: &str = "\
Without -c, commands are read from standard input, one a line. A command that fails does not stop the ones after it, \
but the exit code is 1 then.

Commands:
  read [-q] [-v] [-P PATTERN [-s OFFSET] [-l LENGTH]] OFFSET LENGTH
      Read; -v prints the bytes, -P fails unless every byte is PATTERN, or those from -s on, -l many
  write [-q] [-f] [-z [-u]] [-P PATTERN] OFFSET LENGTH
      Write PATTERN (0xcd unless given); -z writes zeros, -u lets them give back space, -f flushes
  writez [-q] [-u] OFFSET LENGTH
      The same as write -z
  discard [-q] OFFSET LENGTH
      Give back the space of whole chunks, which then read as zeros
  flush
      Make what was written durable
  truncate SIZE
      Change the size of the disk; shrinking is allowed
  length
      Print the size of the disk
  status
      Print the kernel's status line
  sleep MILLISECONDS
  quit";

/// What is written if no pattern is named, as in qemu-io.
const DEFAULT_PATTERN: u8 = 0xcd;

/// A command, checked as far as it can be without an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Read {
        range: ByteRange,
        expect: Option<Expect>,
        is_dumped: bool,
        is_quiet: bool,
    },
    Write {
        range: ByteRange,
        pattern: u8,
        is_flushed: bool,
        is_quiet: bool,
    },
    WriteZeroes {
        range: ByteRange,
        unmap: bool,
        is_flushed: bool,
        is_quiet: bool,
    },
    Discard {
        range: ByteRange,
        is_quiet: bool,
    },
    Flush,
    Truncate(u64),
    Length,
    Status,
    Sleep(u64),
    Quit,
}

/// Bytes that a read has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expect {
    pub(super) pattern: u8,
    /// Where, counted from the start of the disk.
    pub(super) range: ByteRange,
}

impl Command {
    /// Reads a command.
    pub(super) fn parse(text: &str) -> Result<Command, String> {
        let mut words = text.split_whitespace();
        let name = words.next().ok_or("is empty")?;
        let (switches, valued, positional) = match name {
            "read" | "r" => ("qv", "Psl", 2),
            "write" | "w" => ("qfzu", "P", 2),
            "writez" => ("qfu", "", 2),
            "discard" | "d" => ("q", "", 2),
            "truncate" | "t" | "sleep" => ("", "", 1),
            "flush" | "f" | "length" | "l" | "status" | "quit" | "q" => ("", "", 0),
            _ => return Err("there is no such command; see dmsnap io --help".to_owned()),
        };
        let words = Words::split(words, switches, valued)?;
        if words.positional.len() != positional {
            return Err(format!(
                "wanted {positional} arguments, found {}",
                words.positional.len()
            ));
        }
        words.command(name)
    }
}

/// The words behind a command's name.
#[derive(Debug, Default)]
struct Words<'a> {
    switches: String,
    values: Vec<(char, &'a str)>,
    positional: Vec<&'a str>,
}

impl<'a> Words<'a> {
    fn split(
        words: impl Iterator<Item = &'a str>,
        switches: &str,
        valued: &str,
    ) -> Result<Words<'a>, String> {
        let mut found = Words::default();
        let mut words = words;
        while let Some(word) = words.next() {
            let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
                found.positional.push(word);
                continue;
            };
            // As getopt: several switches may share a dash, and a value may follow its letter at once.
            for (at, letter) in letters.char_indices() {
                if switches.contains(letter) {
                    found.switches.push(letter);
                } else if valued.contains(letter) {
                    let rest = &letters[at + letter.len_utf8()..];
                    let value = if rest.is_empty() {
                        words.next()
                    } else {
                        Some(rest)
                    };
                    found.values.push((
                        letter,
                        value.ok_or_else(|| format!("-{letter} wants a value"))?,
                    ));
                    break;
                } else {
                    return Err(format!("there is no -{letter} here"));
                }
            }
        }
        Ok(found)
    }

    fn command(&self, name: &str) -> Result<Command, String> {
        let is_quiet = self.has('q');
        let is_flushed = self.has('f');
        Ok(match name {
            "read" | "r" => {
                let range = self.range()?;
                Command::Read {
                    range,
                    expect: self.expect(range)?,
                    is_dumped: self.has('v'),
                    is_quiet,
                }
            }
            "write" | "w" if self.has('z') => {
                if self.value('P').is_some() {
                    return Err("-z and -P exclude each other".to_owned());
                }
                Command::WriteZeroes {
                    range: self.range()?,
                    unmap: self.has('u'),
                    is_flushed,
                    is_quiet,
                }
            }
            "write" | "w" if self.has('u') => return Err("-u is for -z".to_owned()),
            "write" | "w" => {
                let pattern = self.value('P').map_or(Ok(DEFAULT_PATTERN), parse_pattern)?;
                Command::Write {
                    range: self.range()?,
                    pattern,
                    is_flushed,
                    is_quiet,
                }
            }
            "writez" => Command::WriteZeroes {
                range: self.range()?,
                unmap: self.has('u'),
                is_flushed,
                is_quiet,
            },
            "discard" | "d" => Command::Discard {
                range: self.range()?,
                is_quiet,
            },
            "truncate" | "t" => Command::Truncate(parse_size(self.argument(0))?),
            "sleep" => Command::Sleep(parse_size(self.argument(0))?),
            "flush" | "f" => Command::Flush,
            "length" | "l" => Command::Length,
            "status" => Command::Status,
            _ => Command::Quit,
        })
    }

    fn has(&self, letter: char) -> bool {
        self.switches.contains(letter)
    }

    fn value(&self, letter: char) -> Option<&'a str> {
        self.values
            .iter()
            .rev()
            .find(|(found, _)| *found == letter)
            .map(|(_, value)| *value)
    }

    fn argument(&self, at: usize) -> &'a str {
        self.positional.get(at).copied().unwrap_or_default()
    }

    fn range(&self) -> Result<ByteRange, String> {
        let (start, len) = (parse_size(self.argument(0))?, parse_size(self.argument(1))?);
        ByteRange::checked(start, len).ok_or_else(|| {
            format!("{len} bytes from {start} end past {MAX_FILE_SIZE}, the longest disk")
        })
    }

    /// What is expected, the whole range unless -s or -l narrow it.
    fn expect(&self, range: ByteRange) -> Result<Option<Expect>, String> {
        let skip = self.value('s').map_or(Ok(0), parse_size)?;
        let rest = range.len.checked_sub(skip).ok_or("-s is past the length")?;
        let len = self.value('l').map_or(Ok(rest), parse_size)?;
        if len > rest {
            return Err("-s and -l reach past the length".to_owned());
        }
        let range = ByteRange::new(range.start + skip, len);
        match self.value('P') {
            Some(pattern) => Ok(Some(Expect {
                pattern: parse_pattern(pattern)?,
                range,
            })),
            None if self.values.is_empty() => Ok(None),
            None => Err("-s and -l are for -P".to_owned()),
        }
    }
}

/// A byte: decimal, 0x hexadecimal, or octal with a leading zero, as C has it.
fn parse_pattern(text: &str) -> Result<u8, String> {
    let parsed = match (
        text.strip_prefix("0x").or(text.strip_prefix("0X")),
        text.strip_prefix('0'),
    ) {
        (Some(digits), _) => u8::from_str_radix(digits, 16),
        (None, Some(digits)) if !digits.is_empty() => u8::from_str_radix(digits, 8),
        _ => text.parse(),
    };
    // from_str_radix takes a sign, which no byte has.
    match parsed {
        Ok(pattern) if !text.contains('+') => Ok(pattern),
        _ => Err(format!(
            "'{text}' is not a byte: wanted 0 to 255, or 0x00 to 0xff"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, len: u64) -> ByteRange {
        ByteRange::new(start, len)
    }

    #[test]
    fn test_commands_mean_what_they_mean_to_qemu_io() {
        let write = |pattern| Command::Write {
            range: range(4096, 512),
            pattern,
            is_flushed: false,
            is_quiet: false,
        };
        for (text, command) in [
            ("write -P 0xaa 4k 512", write(0xaa)),
            ("write -P0xaa 4k 512", write(0xaa)),
            ("w 4k 512", write(0xcd)),
            ("write -P 010 4k 512", write(8)),
            ("write -P 0 4k 512", write(0)),
            (
                "read -vP 7 -s 1 -l 2 0 4",
                Command::Read {
                    range: range(0, 4),
                    expect: Some(Expect {
                        pattern: 7,
                        range: range(1, 2),
                    }),
                    is_dumped: true,
                    is_quiet: false,
                },
            ),
            (
                "read -q 0 1M",
                Command::Read {
                    range: range(0, 1 << 20),
                    expect: None,
                    is_dumped: false,
                    is_quiet: true,
                },
            ),
            (
                "write -zu 0 1k",
                Command::WriteZeroes {
                    range: range(0, 1024),
                    unmap: true,
                    is_flushed: false,
                    is_quiet: false,
                },
            ),
            (
                "writez 0 1k",
                Command::WriteZeroes {
                    range: range(0, 1024),
                    unmap: false,
                    is_flushed: false,
                    is_quiet: false,
                },
            ),
            (
                "discard 64k 64k",
                Command::Discard {
                    range: range(65536, 65536),
                    is_quiet: false,
                },
            ),
            ("flush", Command::Flush),
            ("truncate 1M", Command::Truncate(1 << 20)),
        ] {
            assert_eq!(Command::parse(text), Ok(command), "{text}");
        }
    }

    #[test]
    fn test_slips_are_told() {
        for (text, word) in [
            ("", "empty"),
            ("frobnicate", "no such command"),
            ("read 0", "wanted 2"),
            ("read 0 1 2", "wanted 2"),
            ("read -x 0 1", "no -x"),
            ("read -P", "wants a value"),
            ("read -P 256 0 1", "not a byte"),
            ("read -P +1 0 1", "not a byte"),
            ("read -s 1 0 4", "for -P"),
            ("read -P 1 -s 5 0 4", "past the length"),
            ("read -P 1 -s 2 -l 3 0 4", "past the length"),
            ("write -z -P 1 0 4", "exclude"),
            ("write -u 0 4", "for -z"),
            ("write x 4", "not a size"),
            ("write 7E 7E", "longest disk"),
            ("flush now", "wanted 0"),
        ] {
            let message = Command::parse(text).unwrap_err();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}
