//! Changing the descriptor.

use std::path::Path;

use super::create::{OriginFacts, random_uuid};
use super::info::inspect_storage;
use super::layer::Layer;
use super::open::{MAX_DEPTH, open_file};
use super::{Format, Image, names};
use crate::error::{Error, ErrorKind, Result};
use crate::format::{Descriptor, IncompatibleFeatures, Uuid};
use crate::storage::Storage;
use crate::units::check_disk_size;

/// What to change about an image's descriptor. What is not named stays.
///
/// Names count at the next open; the open handle goes on with the origin that it has. A size counts at once: the handle shows what a
/// descriptor that is added says, or what its origin says once there is none.
#[derive(Clone, Debug, Default)]
pub struct Amend {
    pub(super) origin: Option<Option<(String, Format)>>,
    pub(super) add_descriptor: Option<u64>,
    pub(super) remove_descriptor: bool,
    pub(super) uuid: Option<Uuid>,
}

impl Amend {
    /// Changes nothing.
    pub fn new() -> Amend {
        Amend::default()
    }

    /// Records another origin. A relative name starts at the layer's directory, and the file must exist: its size and UUID are
    /// recorded. The content below is not looked at; it must be the same, or the image changes.
    #[must_use]
    pub fn origin(mut self, name: impl Into<String>, format: Format) -> Amend {
        self.origin = Some(Some((name.into(), format)));
        self
    }

    /// Records that there is no origin: unmapped chunks will read as zeros.
    #[must_use]
    pub fn no_origin(mut self) -> Amend {
        self.origin = Some(None);
        self
    }

    /// Gives a bare store a descriptor, with this size of the disk in bytes. Needs chunks of at least 4096 bytes. Where one of the two slots of
    /// a descriptor is damaged, it is written anew from the other one, with this size: it may have said another.
    #[must_use]
    pub fn add_descriptor(mut self, size: u64) -> Amend {
        self.add_descriptor = Some(size);
        self
    }

    /// The UUID of a descriptor that is added, instead of a random one. Layers above this one open only if it is the one they know.
    #[must_use]
    pub fn uuid(mut self, uuid: Uuid) -> Amend {
        self.uuid = Some(uuid);
        self
    }

    /// Makes it a bare store: size, origin and UUID are forgotten.
    #[must_use]
    pub fn remove_descriptor(mut self) -> Amend {
        self.remove_descriptor = true;
        self
    }
}

impl Image {
    /// Changes the descriptor. Durable when it returns.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for changes that contradict each other or the image; [`ErrorKind::ChainTooDeep`] for an origin that
    /// lies over this image; [`ErrorKind::Corrupt`] where a damaged slot of the descriptor leaves the size unknown and no size is
    /// given, or one that would lose data; what looking at the new origin gives;
    /// [`ErrorKind::Busy`] while a merge or the like is under way; else as [`Image::flush`].
    pub fn amend(&self, amend: &Amend) -> Result<()> {
        let _job = self.inner.begin_change()?;
        let top = self.top();
        let named = |error: Error| top.named(error);
        let old = top.facts().descriptor().cloned();
        let is_damaged = !top.facts().descriptor_damage().is_empty();
        amend.refuse_loop(top).map_err(named)?;
        let wanted = amend
            .apply(old.clone(), is_damaged, top.path.as_deref())
            .map_err(named)?;
        if wanted == old && !is_damaged {
            return Ok(());
        }
        let _closed = self.inner.gate.close();
        top.flush()?;
        top.run_job(|store| store.prepare_descriptor(wanted))
    }
}

impl Amend {
    /// An origin that is this image, or lies over it, would be found out at the next open only.
    fn refuse_loop(&self, layer: &Layer) -> Result<()> {
        let (Some(Some((name, format))), Some(own)) = (&self.origin, layer.cow.file_id()) else {
            return Ok(());
        };
        let mut next = Some((names::resolve(name, layer.path.as_deref())?, *format));
        for depth in 0..MAX_DEPTH {
            let Some((path, format)) = next else {
                return Ok(());
            };
            // What is missing further down does not matter here, nor does it where it matters: that is told there.
            let Ok(storage) = open_file(&path, false, false) else {
                return Ok(());
            };
            if storage.file_id() == Some(own) {
                let message = match depth {
                    0 => "an image cannot be its own origin".to_owned(),
                    _ => format!("the origin \"{name}\" lies over this very image"),
                };
                return Err(Error::new(ErrorKind::ChainTooDeep, message));
            }
            let info = match format {
                Format::Raw => return Ok(()),
                Format::Dmsnap => inspect_storage(&storage),
            };
            let Some(descriptor) = info.ok().and_then(|info| info.descriptor) else {
                return Ok(());
            };
            next = names::stored_origin(&descriptor, Some(&path)).unwrap_or(None);
        }
        Ok(())
    }

    fn apply(
        &self,
        old: Option<Descriptor>,
        is_damaged: bool,
        layer: Option<&Path>,
    ) -> Result<Option<Descriptor>> {
        if self.uuid.is_some_and(|uuid| uuid.is_nil()) {
            return Err(contradiction("a UUID of zeros means that there is none"));
        }
        if self.uuid.is_some() && (self.add_descriptor.is_none() || old.is_some()) {
            return Err(contradiction(
                "a UUID is for a descriptor that is added; the UUID of an image that has one stays",
            ));
        }
        if self.remove_descriptor {
            if self.add_descriptor.is_some() || self.origin.is_some() {
                return Err(contradiction(
                    "a descriptor that is removed cannot be changed too",
                ));
            }
            return Ok(None);
        }
        let mut descriptor = match (old, self.add_descriptor) {
            (Some(old), Some(size)) if is_damaged => {
                check_disk_size(size)?;
                Descriptor {
                    virtual_size: size,
                    ..old
                }
            }
            (Some(_), Some(_)) => {
                return Err(contradiction(
                    "the image has a descriptor; its size is changed by resize",
                ));
            }
            (Some(old), None) => old,
            (None, Some(size)) => new_descriptor(size, self.uuid)?,
            (None, None) if self.origin.is_some() => {
                return Err(contradiction(
                    "a bare store records no origin: add a descriptor too",
                ));
            }
            (None, None) => return Ok(None),
        };
        match &self.origin {
            None => {}
            Some(None) => {
                descriptor.origin_name = None;
                descriptor.origin_format = None;
                descriptor.origin_uuid = None;
                descriptor.origin_size = 0;
            }
            Some(Some((name, format))) => {
                let facts = OriginFacts::of_file(&names::resolve(name, layer)?, *format)?;
                descriptor.origin_name = Some(name.clone());
                descriptor.origin_format = Some(format.name().to_owned());
                descriptor.origin_uuid = facts.uuid;
                descriptor.origin_size = facts.size;
            }
        }
        Ok(Some(descriptor))
    }
}

pub(super) fn new_descriptor(size: u64, uuid: Option<Uuid>) -> Result<Descriptor> {
    check_disk_size(size)?;
    Ok(Descriptor {
        generation: 1,
        incompatible: IncompatibleFeatures::empty(),
        compatible: 0,
        virtual_size: size,
        uuid: uuid.map_or_else(random_uuid, Ok)?,
        origin_uuid: None,
        origin_size: 0,
        origin_name: None,
        origin_format: None,
    })
}

fn contradiction(message: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
