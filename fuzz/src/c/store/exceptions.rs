//! New exceptions, and the plans that make them durable.

use dmsnap::ffi::{self, dmsnap_answer, dmsnap_exception, dmsnap_plan};
use dmsnap::storage::Storage;

use super::{Stage, errno_of};
use crate::c::plans::{run_steps, supply};
use crate::c::{check, filled, made};

impl Stage {
    pub(super) fn take_held(&mut self, which: u8) -> Option<dmsnap_exception> {
        let count = self.held.len();
        (count > 0).then(|| self.held.swap_remove(usize::from(which) % count))
    }

    /// Chunks of the disk from `chunk` on, if there are any.
    pub(super) fn chunks(&self, chunk: u64, count: u64) -> Option<(u64, u64)> {
        let chunks = self.facts().virtual_size.div_ceil(self.chunk);
        (chunks > 0).then(|| {
            let first = chunk % chunks;
            (first, (count % 4 + 1).min(chunks - first))
        })
    }

    pub(super) fn prepare(&mut self, chunk: u64, count: u64) {
        let Some((first, count)) = self.chunks(chunk, count) else {
            return;
        };
        let at = first * self.chunk;
        let len = self.facts().virtual_size.min(at + self.chunk) - at;
        // SAFETY: a structure with its size.
        let mapping = filled(|out| unsafe {
            ffi::dmsnap_store_map_write(self.store.as_deref(), at, len, out)
        });
        if mapping.is_ok_and(|mapping| mapping.target == ffi::dmsnap_target::Unmapped) {
            self.prepare_unmapped(first, count);
        }
    }

    pub(super) fn prepare_unmapped(&mut self, first: u64, count: u64) -> Option<dmsnap_exception> {
        let store = self.pointer();
        let mut plan = std::mem::MaybeUninit::uninit();
        let mut exception = std::mem::MaybeUninit::<dmsnap_exception>::zeroed();
        // SAFETY: as for all calls; outputs are written where a call succeeds, the exception with the answer READY.
        unsafe {
            exception
                .as_mut_ptr()
                .cast::<usize>()
                .write(size_of::<dmsnap_exception>());
            let answer = made(|answer| {
                ffi::dmsnap_store_prepare_exception(
                    store,
                    first,
                    count,
                    answer,
                    exception.as_mut_ptr(),
                    Some(&mut plan),
                )
            });
            let plan: Option<Box<dmsnap_plan>> =
                answer.is_ok().then(|| plan.assume_init()).flatten();
            let ready = answer == Ok(dmsnap_answer::Ready);
            self.keep(answer, plan);
            if !ready {
                return None;
            }
            let new = exception.assume_init();
            assert!(
                new.count > 0 && new.count <= count && new.old_chunk == first,
                "{new:?}"
            );
            let end = new.cow_offset + new.count * self.chunk;
            assert!(end <= self.size(), "chunks up to {end} of {}", self.size());
            self.held.push(new);
            Some(new)
        }
    }

    /// Gives a new exception its content and makes it visible.
    pub(super) fn complete(&mut self, which: u8) {
        let Some(new) = self.take_held(which) else {
            return;
        };
        self.value = self.value % 250 + 1;
        let bytes = vec![self.value; (new.count * self.chunk) as usize];
        self.cow.write_at(&bytes, new.cow_offset).expect("reserved");
        // SAFETY: as for all calls.
        if check(unsafe { ffi::dmsnap_store_complete_exception(self.pointer(), new.id) }).is_ok() {
            for chunk in new.old_chunk..new.old_chunk + new.count {
                self.known.insert(chunk, self.value);
                self.fresh.insert(chunk);
            }
        }
    }

    pub(super) fn write(&mut self, chunk: u64, count: u64) {
        let Some((first, count)) = self.chunks(chunk, count) else {
            return;
        };
        let before = self.held.len();
        self.prepare(first, count);
        if self.held.len() > before {
            let last = self.held.len() - 1;
            self.complete(last as u8);
        }
    }

    pub(super) fn read(&mut self, chunk: u64) {
        let Some((first, _)) = self.chunks(chunk, 1) else {
            return;
        };
        let at = first * self.chunk;
        // SAFETY: a structure with its size.
        let mapping =
            filled(|out| unsafe { ffi::dmsnap_store_map(self.store.as_deref(), at, 1, out) });
        let Ok(mapping) = mapping else { return };
        let device = match mapping.target {
            ffi::dmsnap_target::Cow => &self.cow,
            ffi::dmsnap_target::Origin => &self.origin,
            other => panic!("{other:?} is no place to read from"),
        };
        let mut byte = [0];
        if mapping.target == ffi::dmsnap_target::Cow
            || mapping.offset < device.size().expect("a size")
        {
            device
                .read_at(&mut byte, mapping.offset)
                .expect("what is mapped can be read");
        }
        if let Some(value) = self.known.get(&first) {
            assert_eq!(byte[0], *value, "chunk {first}");
        }
    }

    pub(super) fn commit(&mut self) {
        let store = self.pointer();
        let mut plan = std::mem::MaybeUninit::uninit();
        // SAFETY: as for all calls.
        let answer = made(|answer| unsafe {
            ffi::dmsnap_store_commit_exceptions(store, answer, Some(&mut plan))
        });
        // SAFETY: outputs are written where a call succeeds.
        let plan = answer
            .is_ok()
            .then(|| unsafe { plan.assume_init() })
            .flatten();
        if answer == Ok(dmsnap_answer::Clean) {
            self.fresh.clear();
        }
        self.keep(answer, plan);
    }

    pub(super) fn finish(&mut self, which: u8, steps: u8, errno: u8) {
        if self.plans.is_empty() {
            return;
        }
        let mut plan = self
            .plans
            .swap_remove(usize::from(which) % self.plans.len());
        let result = if steps % 4 == 0 { errno_of(errno) } else { 0 };
        if result == 0 {
            supply(&mut plan, &self.cow, &self.origin);
            run_steps(&plan, usize::MAX, &self.cow, &self.origin);
        } else {
            run_steps(&plan, usize::from(steps / 4), &self.cow, &self.origin);
        }
        let store = self.pointer();
        // SAFETY: as for all calls; the plan came from this store.
        let _ = check(unsafe { ffi::dmsnap_store_finish_plan(store, Some(plan), result) });
    }
}
