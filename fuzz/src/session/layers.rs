//! What changes a layer as a whole, or the chain.

use dmsnap::storage::MemoryStorage;
use dmsnap::{Amend, ChunkSize, ErrorKind};

use super::{Change, MOST_LAYERS, Session};
use crate::model::Model;
use crate::watch::Watched;

impl Session {
    pub(super) fn resize(&mut self, size: u64, shrink: bool) {
        let top = self.layers.len() - 1;
        self.allow(top, size.max(self.image().size()));
        let before = self.image().size();
        let result = self.image().resize(size, shrink);
        let found = self.image().size();
        let Some(model) = &mut self.model else { return };
        match result {
            Ok(()) => {
                assert_eq!(found, size, "the size after a resize");
                model.resize(size as usize);
                self.asked = None;
            }
            Err(error) if error.kind() == ErrorKind::InvalidArgument && self.asked.is_none() => {
                assert_eq!(found, before, "the size after a resize that was refused");
            }
            Err(_) => {
                assert!(
                    found == size || found == before,
                    "{found} bytes after a resize"
                );
                let end = before.min(size).max(1) - 1;
                // Chunks at the smaller end are changed as a whole.
                let chunk = self
                    .image
                    .as_ref()
                    .map_or(1, |image| image.chunk_size().bytes());
                model.doubt_size(found as usize, (end / chunk * chunk) as usize);
                self.asked = Some(if found == size { before } else { size });
            }
        }
        self.restrict();
    }

    /// Some steps of a merge with a write in between.
    pub(super) fn merge(&mut self, steps: u8, at: u16) {
        self.allow_origin();
        let Ok(mut merge) = self.image().start_merge() else {
            return;
        };
        let mut done = false;
        for _ in 0..steps {
            match merge.step() {
                Ok(true) => self.write(at, 700),
                Ok(false) => {
                    done = true;
                    break;
                }
                Err(_) => {
                    self.merge_failed = true;
                    break;
                }
            }
        }
        drop(merge);
        if done && !self.trouble {
            assert_eq!(self.image().exceptions(), [], "after a merge");
            // What was merged is durable.
            self.flushed();
            self.merge_failed = false;
        }
        self.restrict();
        self.verify("after a merge");
    }

    pub(super) fn snapshot(&mut self, shift: u8) {
        if self.layers.len() > MOST_LAYERS {
            return;
        }
        let chunk = ChunkSize::from_bytes(1 << (12 + shift % 3)).expect("a legal size");
        let layer = Watched::new(MemoryStorage::new());
        layer.allow(1 << 30);
        let result = self.image().snapshot_to(layer.shared(), None, Some(chunk));
        if result.is_ok() {
            self.layers.push(layer);
            self.initial.push(0);
            // The layer that is frozen is durable.
            self.flushed();
            self.restrict();
        }
    }

    /// What lies below is not known to the model.
    pub(super) fn make_empty(&mut self) {
        if self.image().make_empty().is_ok() {
            assert_eq!(self.image().exceptions(), [], "after it was emptied");
        }
        if self.model.is_some() {
            let size = self.image().size() as usize;
            let mut model = Model::default();
            model.doubt_size(size, 0);
            self.model = Some(model);
        }
        self.verify("after it was emptied");
        self.flush();
    }

    pub(super) fn amend(&mut self, change: Change) {
        // The layer above and the size that was given would not fit any more.
        if self.layers.len() > 2 {
            return;
        }
        let amend = match change {
            // Nothing below would be known at the next open, which names an origin all the same.
            Change::NoOrigin => Amend::new().no_origin(),
            Change::AddDescriptor { sectors } => {
                Amend::new().add_descriptor(u64::from(sectors) * 512)
            }
            Change::RemoveDescriptor => Amend::new().remove_descriptor(),
        };
        let _ = self.image().amend(&amend);
        if !matches!(change, Change::NoOrigin) {
            // Another size may count from now on.
            self.model = None;
        }
    }
}
