//! What went wrong, as the user hears of it.

use std::path::Path;

use dmsnap::{Error, ErrorKind};

use crate::output;

/// A message for standard error and the exit code that goes with it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    message: String,
    hint: Option<&'static str>,
    /// Whether the message says which file it is about.
    is_named: bool,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// The exit code of a failure that has none of its own.
    pub(crate) const GENERAL: u8 = 1;

    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure {
            code: Self::GENERAL,
            message: message.into(),
            hint: None,
            is_named: false,
        }
    }

    /// A failure that is about `path`, where the message does not say so yet.
    pub(crate) fn at(path: &Path, message: impl AsRef<str>) -> Failure {
        Failure {
            is_named: true,
            ..Failure::new(format!("{}: {}", path.display(), message.as_ref()))
        }
    }

    /// Changes the exit code.
    pub(crate) fn with_code(mut self, code: u8) -> Failure {
        self.code = code;
        self
    }

    /// Adds what to do about it.
    pub(crate) fn with_hint(mut self, hint: &'static str) -> Failure {
        self.hint = Some(hint);
        self
    }

    /// Names the file, where the message does not say any.
    pub(crate) fn named(self, path: &Path) -> Failure {
        if self.is_named {
            return self;
        }
        Failure {
            message: format!("{}: {}", path.display(), self.message),
            is_named: true,
            ..self
        }
    }

    /// Takes the advice away, where it leads nowhere.
    pub(crate) fn without_hint(mut self) -> Failure {
        self.hint = None;
        self
    }

    /// Calls a file that is being made by the name that the user knows it by.
    pub(crate) fn renamed(mut self, from: &Path, to: &Path) -> Failure {
        if self.hint == Some(NO_SPACE) {
            self.hint = Some("add space and try again.");
        }
        let (from, to) = (from.display().to_string(), to.display().to_string());
        self.message = self.message.replace(&from, &to);
        self
    }

    /// Prints it.
    pub(crate) fn report(&self) {
        output::complain(&self.message);
        if let Some(hint) = self.hint {
            output::complain(hint);
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure {
            hint: hint(&error),
            is_named: error.path().is_some(),
            ..Failure::new(error.to_string())
        }
    }
}

/// Names the file in errors of the library that do not.
pub(crate) trait About<T> {
    fn about(self, path: &Path) -> Result<T>;
}

impl<T> About<T> for dmsnap::Result<T> {
    fn about(self, path: &Path) -> Result<T> {
        self.map_err(|error| error.with_path(path.display().to_string()).into())
    }
}

impl<T> About<T> for std::io::Result<T> {
    fn about(self, path: &Path) -> Result<T> {
        self.map_err(|error| Failure::at(path, error.to_string()))
    }
}

/// For a file that was there before.
const NO_SPACE: &str = "nothing that was flushed is lost; add space and try again.";

/// What the library cannot know: which option of the tool helps.
fn hint(error: &Error) -> Option<&'static str> {
    match error.kind() {
        ErrorKind::SnapshotInvalid => Some(
            "its data is not to be trusted. `dmsnap recover` saves what its log holds to a new file; that is complete only if no write to \
             the origin was the cause. Else go back to a backup, or create a new layer over the origin, which holds what was last \
             written or merged to it; if a merge of this layer had begun, it is inconsistent.",
        ),
        ErrorKind::Busy => {
            Some("close the program that uses it, or detach the device, and try again.")
        }
        ErrorKind::OriginRefused => Some("say what lies below with --origin PATH."),
        ErrorKind::OriginMismatch => Some(
            "name the right origin with --origin PATH; --ignore-origin-uuid goes on all the same, most likely with wrong content.",
        ),
        ErrorKind::Corrupt => Some(
            "`dmsnap check` lists what is wrong, `dmsnap recover` saves what is certain to a new file. An image descriptor can be mended: \
             `dmsnap amend` writes one anew (--add-descriptor SIZE) or takes it away (--remove-descriptor).",
        ),
        // The operating system's word on a file that the user named needs no hint.
        ErrorKind::NotFound if !error.message().is_empty() => Some(
            "name another one with --origin PATH, or record it with `dmsnap amend -b PATH -F FMT`.",
        ),
        ErrorKind::NoSpace => Some(NO_SPACE),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_file_is_named_once() {
        let path = Path::new("layer.dms");
        let bare: dmsnap::Result<()> = Err(Error::new(ErrorKind::Corrupt, "odd"));
        assert_eq!(
            bare.about(path).unwrap_err().message,
            "layer.dms: corrupt: odd"
        );
        let named: dmsnap::Result<()> =
            Err(Error::new(ErrorKind::Corrupt, "odd").with_path("base.raw"));
        assert_eq!(
            named.about(path).unwrap_err().message,
            "base.raw: corrupt: odd"
        );
    }

    #[test]
    fn test_temporary_name_is_not_shown() {
        let failure = Failure::at(Path::new("dir/.tmp1"), "no space left");
        let failure = failure.renamed(Path::new("dir/.tmp1"), Path::new("dir/out.raw"));
        assert_eq!(failure.message, "dir/out.raw: no space left");
    }
}
