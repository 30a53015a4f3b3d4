//! Names of origins as images store them.

use std::path::{Component, Path, PathBuf};

use super::Format;
use crate::error::{Error, ErrorKind, Result};
use crate::format::Descriptor;

/// Whether a name is of the kind that QEMU's block layer gives a meaning of its own: `json:...`, `nbd://...`.
pub(super) fn has_protocol(name: &str) -> bool {
    let colon = name.find(':');
    colon.is_some_and(|colon| !name[..colon].contains('/'))
}

/// The file a name means: a relative one starts at the directory of the file that stores it.
pub(super) fn resolve(name: &str, stored_in: Option<&Path>) -> Result<PathBuf> {
    if name.is_empty() {
        let message = "the name of the origin is empty";
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    if has_protocol(name) {
        let message = format!(
            "the origin \"{name}\" is named in the way of QEMU's protocols, and only files can be opened here; a file \
             of such a name is written \"./{name}\""
        );
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let directory = stored_in.and_then(Path::parent);
    Ok(directory.map_or_else(|| PathBuf::from(name), |directory| directory.join(name)))
}

/// Whether a name leads to no other directory than that of the file that stores it, or one below.
pub(super) fn stays_inside(name: &str) -> bool {
    let stays = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    Path::new(name).components().all(stays)
}

/// The origin that a descriptor names, as a file and its format.
pub(super) fn stored_origin(
    descriptor: &Descriptor,
    stored_in: Option<&Path>,
) -> Result<Option<(PathBuf, Format)>> {
    let Some(name) = &descriptor.origin_name else {
        return Ok(None);
    };
    let path = resolve(name, stored_in)?;
    let format = match &descriptor.origin_format {
        None => {
            let message = format!(
                "the image does not say which format its origin \"{name}\" has, and formats are never guessed"
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        Some(format) => Format::from_name(format).ok_or_else(|| {
            let message = format!(
                "the origin \"{name}\" has the format \"{format}\"; only raw and dmsnap can be opened here"
            );
            Error::new(ErrorKind::Unsupported, message)
        })?,
    };
    Ok(Some((path, format)))
}

/// The name by which `target` is found from a file at `from`: relative if both are in one directory tree and the path says so already.
pub(super) fn relative_name(target: &Path, from: &Path) -> Result<String> {
    let directory = |path: &Path| path.parent().map(Path::to_path_buf).unwrap_or_default();
    let name = match target.file_name() {
        Some(file) if directory(target) == directory(from) => PathBuf::from(file),
        _ if same_directory(target, from) => {
            target.file_name().map(PathBuf::from).unwrap_or_default()
        }
        _ => std::path::absolute(target)
            .map_err(|error| Error::io("find the current directory", error))?,
    };
    let name = name.to_str().ok_or_else(|| {
        let message = "its name is not UTF-8, and no descriptor can hold it";
        Error::new(ErrorKind::InvalidArgument, message).with_path(target.display().to_string())
    })?;
    // A file called "a:b" must not look like a protocol.
    Ok(if has_protocol(name) {
        format!("./{name}")
    } else {
        name.to_owned()
    })
}

fn same_directory(one: &Path, other: &Path) -> bool {
    let directory = |path: &Path| {
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        std::fs::canonicalize(parent.unwrap_or(Path::new("."))).ok()
    };
    matches!((directory(one), directory(other)), (Some(one), Some(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_names_start_at_the_layers_directory() {
        let layer = Some(Path::new("dir/layer.cow"));
        assert_eq!(
            resolve("base.raw", layer).unwrap(),
            Path::new("dir/base.raw")
        );
        assert_eq!(resolve("/base.raw", layer).unwrap(), Path::new("/base.raw"));
        assert_eq!(resolve("base.raw", None).unwrap(), Path::new("base.raw"));
        assert_eq!(resolve("./a:b", layer).unwrap(), Path::new("dir/./a:b"));
    }

    #[test]
    fn test_names_that_lead_away_are_found() {
        let inside = [
            "base.raw",
            "./base.raw",
            "images/base.raw",
            "a..b",
            "json:{}",
        ];
        let outside = [
            "/base.raw",
            "../base.raw",
            "images/../../base.raw",
            "images/..",
        ];
        for name in inside {
            assert!(stays_inside(name), "{name}");
        }
        for name in outside {
            assert!(!stays_inside(name), "{name}");
        }
    }

    #[test]
    fn test_names_of_protocols_are_refused() {
        for name in ["json:{\"driver\":\"raw\"}", "nbd://host/x", "proto:", ":x"] {
            let error = resolve(name, None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}");
        }
    }

    #[test]
    fn test_relative_names_are_used_within_one_directory() {
        let name =
            |target: &str, from: &str| relative_name(Path::new(target), Path::new(from)).unwrap();
        assert_eq!(name("dir/a", "dir/b"), "a");
        assert_eq!(name("a", "./b"), "a");
        assert_eq!(name("a:b", "c"), "./a:b");
        assert!(name("dir/a", "b").ends_with("/dir/a"));
        assert!(name("dir/a", "b").starts_with('/'));
    }
}
