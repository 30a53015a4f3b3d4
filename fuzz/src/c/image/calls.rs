//! What is called.

use std::ptr::{null, null_mut};

use arbitrary::Arbitrary;
use dmsnap::ffi;

use super::Stage;
use crate::c::host::{Host, Manner};
use crate::c::{check, filled, made};

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Call {
    Read {
        at: u16,
        len: u16,
    },
    Write {
        at: u16,
        len: u16,
    },
    Zeroes {
        at: u16,
        len: u16,
        unmap: bool,
    },
    Discard {
        at: u16,
        len: u16,
    },
    Flush,
    Resize {
        sectors: u8,
        shrink: bool,
    },
    Facts,
    Extent {
        at: u16,
    },
    Run {
        chunk: u8,
    },
    Merge,
    MergeOpen,
    MergeStep,
    MergeFree,
    Snapshot {
        shift: u8,
    },
    MakeEmpty,
    Drop,
    Info,
    Check {
        repair: u8,
    },
    Amend {
        sectors: u8,
        remove: bool,
    },
    /// The handle of the storage, which the image goes on to use.
    FreeStorage,
    Fail {
        origin: bool,
        after: u8,
        errno: u8,
    },
    Heal,
    Reopen {
        overflow: u8,
    },
    /// Numbers that nothing has.
    Nonsense {
        which: u8,
        a: u64,
        b: u64,
    },
}

impl Stage {
    /// Returns whether the image can be used on.
    pub(super) fn call(&mut self, call: Call, chunk: u64, cow: &Host, origin: &Host) -> bool {
        match call {
            Call::Read { at, len } => self.read_some(at, len),
            Call::Write { at, len } => self.write(at, len),
            Call::Zeroes { at, len, unmap } => {
                let range = self.range(at, len);
                let result = ffi::dmsnap_image_write_zeroes(self.image(), range.0, range.1, unmap);
                self.changed(range, 0, check(result));
            }
            Call::Discard { at, len } => self.discard(at, len),
            Call::Flush => self.flush(),
            Call::Resize { sectors, shrink } => self.resize(sectors, shrink),
            Call::Facts => self.facts(),
            Call::Extent { at } => self.extent(at),
            Call::Run { chunk } => {
                // SAFETY: a structure with its size.
                let _ = filled(|out| unsafe {
                    ffi::dmsnap_image_next_run(self.image(), chunk.into(), out)
                });
            }
            Call::Merge => {
                // SAFETY: no callback.
                let _ = check(unsafe { ffi::dmsnap_image_merge(self.image(), None, null_mut()) });
            }
            Call::MergeOpen => {
                if self.merge.is_none() {
                    self.merge = made(|out| ffi::dmsnap_merge_open(self.image(), out)).ok();
                }
            }
            Call::MergeStep => self.merge_step(),
            Call::MergeFree => ffi::dmsnap_merge_free(self.merge.take()),
            Call::Snapshot { shift } => self.snapshot(shift),
            Call::MakeEmpty => {
                let _ = check(ffi::dmsnap_image_make_empty(self.image()));
                self.learn();
            }
            Call::Drop => {
                let _ = check(ffi::dmsnap_image_drop_snapshot(self.image()));
                return false;
            }
            Call::Info => self.info(),
            Call::Check { repair } => self.check_storage(repair),
            Call::Amend { sectors, remove } => self.amend(sectors, remove),
            Call::FreeStorage => ffi::dmsnap_storage_free(self.cow.take()),
            Call::Fail {
                origin: below,
                after,
                errno,
            } => {
                let host = if below {
                    origin
                } else {
                    self.tops.last().map_or(cow, |top| top)
                };
                fail(host, after, errno);
                self.trouble = true;
            }
            Call::Heal => {
                cow.heal();
                origin.heal();
                self.tops.iter().for_each(|top| top.heal());
            }
            Call::Reopen { overflow } => return self.reopen(chunk, overflow, cow, origin),
            Call::Nonsense { which, a, b } => self.nonsense(which, a, b),
        }
        true
    }

    fn read_some(&mut self, at: u16, len: u16) {
        let (at, len) = self.range(at, len);
        let mut bytes = vec![0; len as usize];
        let result = self.read(&mut bytes, at);
        assert!(result.is_ok() || self.trouble, "a read failed: {result:?}");
        if let (Ok(()), Some(model)) = (result, &mut self.model) {
            model.read(at as usize, &bytes, "read");
        }
    }

    fn write(&mut self, at: u16, len: u16) {
        let range = self.range(at, len);
        self.value = self.value % 250 + 1;
        let bytes = vec![self.value; range.1 as usize];
        // SAFETY: a buffer and its length.
        let result = unsafe {
            ffi::dmsnap_image_write(self.image(), bytes.as_ptr().cast(), bytes.len(), range.0)
        };
        self.changed(range, self.value, check(result));
    }

    fn discard(&mut self, at: u16, len: u16) {
        let range = self.range(at, len);
        let _ = check(ffi::dmsnap_image_discard(self.image(), range.0, range.1));
        if let Some(model) = &mut self.model {
            model.doubt(range.0 as usize..(range.0 + range.1) as usize, 0);
        }
    }

    fn flush(&mut self) {
        let flushed = check(ffi::dmsnap_image_flush(self.image()));
        if let (Ok(()), Some(model)) = (flushed, &mut self.model) {
            model.flushed();
        }
    }

    fn resize(&mut self, sectors: u8, shrink: bool) {
        let size = u64::from(sectors) * 512;
        let resized = check(ffi::dmsnap_image_resize(self.image(), size, shrink));
        match (resized, &mut self.model) {
            (Ok(()), Some(model)) => model.resize(size as usize),
            (Ok(()), None) => {}
            (Err(_), _) => self.model = None,
        }
    }

    fn extent(&self, at: u16) {
        let (at, len) = self.range(at, u16::MAX);
        // SAFETY: a structure with its size.
        let extent =
            filled(|out| unsafe { ffi::dmsnap_image_next_extent(self.image(), at, len, out) });
        if let Ok(extent) = extent {
            assert!(extent.len > 0 && extent.len <= len, "{extent:?}");
        }
    }

    fn merge_step(&mut self) {
        if self.merge.is_some() {
            let _ = made(|out| ffi::dmsnap_merge_step(self.merge.as_deref_mut(), out));
            // SAFETY: a structure with its size.
            let _ = filled(|out| unsafe { ffi::dmsnap_merge_progress(self.merge.as_deref(), out) });
        }
    }

    pub(super) fn reopen(&mut self, chunk: u64, overflow: u8, cow: &Host, origin: &Host) -> bool {
        if self.cow.is_none() || !self.tops.is_empty() {
            return true;
        }
        self.close();
        cow.heal();
        origin.heal();
        // An amended layer may have another size, and one in mode P may be given up.
        if self.open(chunk, overflow).is_err() {
            return false;
        }
        // As a kernel does it, a layer that overflows is not read any more.
        self.trouble |= overflow % 3 != 0;
        if let Some(model) = &mut self.model {
            model.reopened();
        }
        if self
            .model
            .as_ref()
            .is_some_and(|model| model.len() as u64 != self.disk())
        {
            self.model = None;
        }
        true
    }

    pub(super) fn facts(&self) {
        let chunk = made(|out| ffi::dmsnap_image_chunk_size(self.image(), out));
        assert!(chunk.is_ok_and(u64::is_power_of_two));
        // SAFETY: structures with their sizes.
        unsafe {
            filled(|out| ffi::dmsnap_image_status(self.image(), out)).expect("a status");
            filled(|out| ffi::dmsnap_image_usage(self.image(), out)).expect("figures");
        }
    }

    pub(super) fn info(&self) {
        let Ok(info) = made(|out| ffi::dmsnap_image_info(self.image(), out)) else {
            assert!(self.trouble);
            return;
        };
        // SAFETY: structures with their sizes.
        unsafe {
            let facts = filled(|out| ffi::dmsnap_info_facts(Some(&info), out)).expect("facts");
            for index in 0..=facts.layers {
                let layer = filled(|out| ffi::dmsnap_info_layer(Some(&info), index, out));
                assert_eq!(layer.is_ok(), index < facts.layers);
            }
            filled(|out| ffi::dmsnap_info_status(Some(&info), out)).expect("a status");
            filled(|out| ffi::dmsnap_info_usage(Some(&info), out)).expect("figures");
        }
        if let Ok(Some(descriptor)) = made(|out| ffi::dmsnap_info_descriptor(Some(&info), out)) {
            // SAFETY: a structure with its size.
            unsafe { filled(|out| ffi::dmsnap_descriptor_read(Some(&descriptor), out)) }
                .expect("numbers");
            ffi::dmsnap_descriptor_free(Some(descriptor));
        }
        ffi::dmsnap_info_free(Some(info));
    }

    pub(super) fn snapshot(&mut self, shift: u8) {
        if self.tops.len() == 2 {
            return;
        }
        let top = Host::new(0, Manner::PLAIN);
        let storage = top.storage();
        // SAFETY: no name.
        let result = unsafe {
            ffi::dmsnap_image_snapshot_to(self.image(), Some(&storage), null(), 4096 << (shift % 3))
        };
        let _ = check(result);
        ffi::dmsnap_storage_free(Some(storage));
        // Whether it is used or not, it has to be freed in the end.
        self.tops.push(top);
    }

    /// Refused, because the image uses it, unless that has gone.
    pub(super) fn check_storage(&self, repair: u8) {
        let mut options = ffi::dmsnap_check_options_new();
        let _ = check(ffi::dmsnap_check_options_set_repair(
            options.as_deref_mut(),
            u32::from(repair % 4),
        ));
        if let Ok(report) = made(|out| {
            ffi::dmsnap_check_report_open_storage(self.cow.as_deref(), options.as_deref(), out)
        }) {
            // SAFETY: structures with their sizes.
            unsafe {
                let summary = filled(|out| ffi::dmsnap_check_report_summary(Some(&report), out));
                for index in 0..summary.map_or(0, |summary| summary.findings) {
                    filled(|out| ffi::dmsnap_check_report_finding(Some(&report), index, out))
                        .expect("a finding");
                }
            }
            ffi::dmsnap_check_report_free(Some(report));
        }
        ffi::dmsnap_check_options_free(options);
    }

    pub(super) fn amend(&mut self, sectors: u8, remove: bool) {
        let mut options = ffi::dmsnap_amend_options_new();
        let set = options.as_deref_mut();
        let _ = check(if remove {
            ffi::dmsnap_amend_options_remove_descriptor(set)
        } else {
            ffi::dmsnap_amend_options_add_descriptor(set, u64::from(sectors) * 512)
        });
        let _ = check(ffi::dmsnap_image_amend(self.image(), options.as_deref()));
        ffi::dmsnap_amend_options_free(options);
        // Another size may count from now on.
        self.size = self.disk();
        self.model = None;
    }

    pub(super) fn nonsense(&mut self, which: u8, a: u64, b: u64) {
        let size = self.disk();
        if a.checked_add(b).is_some_and(|end| end <= size) {
            return;
        }
        let result = match which % 4 {
            0 => ffi::dmsnap_image_discard(self.image(), a, b),
            1 => ffi::dmsnap_image_write_zeroes(self.image(), a, b, false),
            2 => ffi::dmsnap_image_discard(None, a, b),
            _ => {
                // SAFETY: a structure with its size.
                let extent =
                    unsafe { filled(|out| ffi::dmsnap_image_next_extent(self.image(), a, b, out)) };
                extent.map_or_else(|failed| failed.0, |_| 0)
            }
        };
        assert!(check(result).is_err(), "{b} bytes at {a} of {size}");
    }
}

fn fail(host: &Host, after: u8, errno: u8) {
    let errnos = [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::ENOTSUP];
    host.fail_after(after.into(), errnos[usize::from(errno) % 4]);
}
