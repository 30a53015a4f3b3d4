//! The half of the ABI without I/O: the host runs plans, several of them in flight, and reports failures.

mod exceptions;

use std::collections::{HashMap, HashSet};
use std::ptr::NonNull;

use arbitrary::Arbitrary;
use dmsnap::ffi::{self, dmsnap_answer, dmsnap_exception, dmsnap_plan, dmsnap_store};
use dmsnap::storage::{MemoryStorage, Storage};

use super::plans::{descriptor, format, supply};
use super::{Failed, check, filled, made};
use crate::builder::{Built, RawOrigin};

#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Call {
    Write {
        chunk: u8,
        count: u8,
    },
    Prepare {
        chunk: u8,
        count: u8,
    },
    Complete {
        which: u8,
    },
    Abort {
        which: u8,
    },
    Commit,
    /// Runs a plan that is held, or a part of it.
    Finish {
        which: u8,
        steps: u8,
        errno: u8,
    },
    Read {
        chunk: u8,
    },
    PrepareMerge {
        sectors: u8,
    },
    PrepareResize {
        sectors: u8,
    },
    PrepareDescriptor {
        sectors: Option<u8>,
    },
    PrepareRepair,
    MakeEmpty,
    DropSnapshot,
    NextPlan,
    Cancel,
    Reclaim,
    Trim,
    TakeInvalidation,
    SetCowSize,
    Fail {
        errno: u8,
    },
    Pin,
    Unpin,
    SetWritable {
        writable: bool,
    },
    Facts,
    Reload {
        overflow: u8,
    },
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Scene {
    store: Built,
    /// A new store instead of that one.
    fresh: Option<(u8, u8)>,
    origin: RawOrigin,
    calls: Vec<Call>,
}

struct Stage {
    cow: MemoryStorage,
    origin: MemoryStorage,
    store: Option<Box<dmsnap_store>>,
    chunk: u64,
    held: Vec<dmsnap_exception>,
    plans: Vec<Box<dmsnap_plan>>,
    pins: Vec<u64>,
    /// What chunks are known to hold.
    known: HashMap<u64, u8>,
    /// Those of them that no commit has covered.
    fresh: HashSet<u64>,
    value: u8,
}

pub fn run(scene: &Scene) {
    let origin = scene.origin.storage();
    let cow = match scene.fresh {
        None => scene.store.storage(),
        Some((shift, sectors)) => format(512 << (shift % 6), u64::from(sectors) * 512),
    };
    let mut stage = Stage {
        cow,
        origin,
        store: None,
        chunk: 512,
        held: Vec::new(),
        plans: Vec::new(),
        pins: Vec::new(),
        known: HashMap::new(),
        fresh: HashSet::new(),
        value: 0,
    };
    stage.check_report();
    if stage.load(0).is_ok() && stage.chunk <= 32 << 10 {
        for call in scene.calls.iter().take(48) {
            if !stage.call(*call) {
                break;
            }
        }
    }
    stage.free();
}

impl Stage {
    fn pointer(&mut self) -> Option<NonNull<dmsnap_store>> {
        self.store.as_deref_mut().map(NonNull::from)
    }

    fn size(&self) -> u64 {
        self.cow.size().expect("a size")
    }

    fn options(&self, overflow: u8) -> Option<Box<ffi::dmsnap_load_options>> {
        let mut options = ffi::dmsnap_load_options_new(self.size());
        let results = [
            ffi::dmsnap_load_options_set_growable(options.as_deref_mut(), self.cow.is_growable()),
            ffi::dmsnap_load_options_set_writable(options.as_deref_mut(), true),
            ffi::dmsnap_load_options_set_origin_size(
                options.as_deref_mut(),
                self.origin.size().expect("a size") / 512 * 512,
            ),
            ffi::dmsnap_load_options_set_overflow_mode(
                options.as_deref_mut(),
                u32::from(overflow % 3),
            ),
        ];
        for result in results {
            check(result).expect("legal options");
        }
        options
    }

    fn load(&mut self, overflow: u8) -> Result<(), Failed> {
        let options = self.options(overflow);
        let loader = made(|out| ffi::dmsnap_loader_new(options.as_deref(), out));
        ffi::dmsnap_load_options_free(options);
        let mut loader = loader?;
        loop {
            match made(|out| ffi::dmsnap_loader_next_plan(Some(&mut loader), out)) {
                Ok(Some(mut plan)) => {
                    supply(&mut plan, &self.cow, &self.origin);
                    if let Err(failed) = check(ffi::dmsnap_loader_finish_plan(
                        Some(&mut loader),
                        Some(plan),
                    )) {
                        ffi::dmsnap_loader_free(Some(loader));
                        return Err(failed);
                    }
                }
                Ok(None) => break,
                Err(failed) => {
                    ffi::dmsnap_loader_free(Some(loader));
                    return Err(failed);
                }
            }
        }
        self.store = Some(made(|out| ffi::dmsnap_loader_finish(Some(loader), out))?);
        self.chunk = self.facts().chunk_size;
        Ok(())
    }

    fn check_report(&self) {
        let options = self.options(0);
        let reader = made(|out| ffi::dmsnap_check_reader_new(options.as_deref(), out));
        ffi::dmsnap_load_options_free(options);
        let Ok(mut reader) = reader else { return };
        loop {
            let plan = made(|out| ffi::dmsnap_check_reader_next_plan(Some(&mut reader), out));
            let Ok(Some(mut plan)) = plan else { break };
            supply(&mut plan, &self.cow, &self.origin);
            if check(ffi::dmsnap_check_reader_finish_plan(
                Some(&mut reader),
                Some(plan),
            ))
            .is_err()
            {
                break;
            }
        }
        if let Ok(report) = made(|out| ffi::dmsnap_check_reader_finish(Some(reader), out)) {
            // SAFETY: structures with their sizes.
            unsafe {
                let summary = filled(|out| ffi::dmsnap_check_report_summary(Some(&report), out))
                    .expect("a summary");
                for index in 0..summary.findings {
                    filled(|out| ffi::dmsnap_check_report_finding(Some(&report), index, out))
                        .expect("a finding");
                }
                assert!(
                    filled(|out| ffi::dmsnap_check_report_finding(
                        Some(&report),
                        summary.findings,
                        out
                    ))
                    .is_err()
                );
            }
            ffi::dmsnap_check_report_free(Some(report));
        }
    }

    fn facts(&self) -> ffi::dmsnap_store_facts {
        // SAFETY: a structure with its size.
        filled(|out| unsafe { ffi::dmsnap_store_info(self.store.as_deref(), out) }).expect("facts")
    }

    fn free(&mut self) {
        for plan in self.plans.drain(..) {
            let store = self.store.as_deref_mut().map(NonNull::from);
            // SAFETY: the store is used by nobody else.
            let _ = check(unsafe { ffi::dmsnap_store_finish_plan(store, Some(plan), -libc::EIO) });
        }
        self.held.clear();
        self.pins.clear();
        ffi::dmsnap_store_free(self.store.take());
    }

    /// Returns whether the store can be used on. Calls for the store are exclusive: there is one thread.
    fn call(&mut self, call: Call) -> bool {
        // SAFETY: the store of this stage, which nothing else uses.
        unsafe {
            let store = self.pointer();
            match call {
                Call::Write { chunk, count } => self.write(chunk.into(), count.into()),
                Call::Prepare { chunk, count } => self.prepare(chunk.into(), count.into()),
                Call::Complete { which } => self.complete(which),
                Call::Abort { which } => {
                    if let Some(new) = self.take_held(which) {
                        check(ffi::dmsnap_store_abort_exception(store, new.id))
                            .expect("it was in flight");
                    }
                }
                Call::Commit => self.commit(),
                Call::Finish {
                    which,
                    steps,
                    errno,
                } => self.finish(which, steps, errno),
                Call::Read { chunk } => self.read(chunk.into()),
                Call::PrepareMerge { sectors } => {
                    let least = u64::from(sectors) * 512;
                    let size = self.origin.size().expect("a size").max(least);
                    if self.origin.set_size(size).is_ok() {
                        let _ = check(ffi::dmsnap_store_prepare_merge(store, size));
                    }
                }
                Call::PrepareResize { sectors } => {
                    let size = self.origin.size().expect("a size");
                    let resize =
                        ffi::dmsnap_store_prepare_resize(store, u64::from(sectors) * 512, size);
                    if check(resize).is_ok() {
                        self.forget();
                    }
                }
                Call::PrepareDescriptor { sectors } => {
                    let descriptor =
                        sectors.map(|sectors| descriptor(u64::from(sectors) * 512).expect("legal"));
                    let _ = check(ffi::dmsnap_store_prepare_descriptor(
                        store,
                        descriptor.as_deref(),
                    ));
                    ffi::dmsnap_descriptor_free(descriptor);
                    self.forget();
                }
                Call::PrepareRepair => _ = check(ffi::dmsnap_store_prepare_repair(store)),
                Call::MakeEmpty => {
                    let _ = check(ffi::dmsnap_store_make_empty(store));
                    self.forget();
                }
                Call::DropSnapshot => {
                    let _ = check(ffi::dmsnap_store_drop_snapshot(store));
                    self.forget();
                }
                Call::NextPlan => {
                    let mut plan = None;
                    let answer = made(|answer| {
                        let mut out = std::mem::MaybeUninit::uninit();
                        let result = ffi::dmsnap_store_next_plan(store, answer, Some(&mut out));
                        if result == 0 {
                            plan = out.assume_init();
                        }
                        result
                    });
                    self.keep(answer, plan);
                }
                Call::Cancel => _ = check(ffi::dmsnap_store_cancel(store)),
                Call::Reclaim => self.keep_plan(made(|out| ffi::dmsnap_store_reclaim(store, out))),
                Call::Trim => self.keep_plan(made(|out| ffi::dmsnap_store_trim(store, out))),
                Call::TakeInvalidation => {
                    self.keep_plan(made(|out| ffi::dmsnap_store_take_invalidation(store, out)))
                }
                Call::SetCowSize => _ = check(ffi::dmsnap_store_set_cow_size(store, self.size())),
                Call::Fail { errno } => _ = check(ffi::dmsnap_store_fail(store, errno_of(errno))),
                Call::Pin => self.pins.push(ffi::dmsnap_store_pin(self.store.as_deref())),
                Call::Unpin => {
                    if let Some(pin) = self.pins.pop() {
                        let _ = ffi::dmsnap_store_unpin(self.store.as_deref(), pin);
                    }
                }
                Call::SetWritable { writable } => {
                    _ = check(ffi::dmsnap_store_set_writable(store, writable))
                }
                Call::Facts => self.look(),
                Call::Reload { overflow } => return self.reload(overflow),
            }
        }
        true
    }

    /// What the store shows may be another thing from here on.
    fn forget(&mut self) {
        self.known.clear();
        self.fresh.clear();
    }

    fn keep(&mut self, answer: Result<dmsnap_answer, Failed>, plan: Option<Box<dmsnap_plan>>) {
        assert_eq!(
            answer == Ok(dmsnap_answer::Plan),
            plan.is_some(),
            "{answer:?}"
        );
        self.plans.extend(plan);
    }

    fn keep_plan(&mut self, plan: Result<Option<Box<dmsnap_plan>>, Failed>) {
        self.plans.extend(plan.ok().flatten());
    }

    fn look(&self) {
        let store = self.store.as_deref();
        self.facts();
        let _ = (
            ffi::dmsnap_store_should_commit(store),
            ffi::dmsnap_store_is_cancelling(store),
        );
        // SAFETY: structures with their sizes.
        unsafe {
            let _ = filled(|out| ffi::dmsnap_store_usage(store, out));
            let _ = filled(|out| ffi::dmsnap_store_status(store, out));
            let _ = filled(|out| ffi::dmsnap_store_progress(store, out));
            let mut chunk = 0;
            for _ in 0..50 {
                let Ok(run) = filled(|out| ffi::dmsnap_store_next_run(store, chunk, out)) else {
                    break;
                };
                // Behind the last one there is an empty run.
                if run.count == 0 {
                    break;
                }
                assert!(run.old_chunk >= chunk && run.count > 0, "{run:?}");
                chunk = run.old_chunk + run.count;
            }
        }
        if let Ok(descriptor) = made(|out| ffi::dmsnap_store_descriptor(store, out)) {
            ffi::dmsnap_descriptor_free(descriptor);
        }
    }

    /// The host dies and comes back: what was committed is there.
    fn reload(&mut self, overflow: u8) -> bool {
        let facts = self.facts();
        self.free();
        for chunk in std::mem::take(&mut self.fresh) {
            self.known.remove(&chunk);
        }
        if self.load(overflow).is_err() {
            return false;
        }
        if facts.virtual_size != self.facts().virtual_size {
            self.forget();
        }
        let known: Vec<u64> = self.known.keys().copied().collect();
        for chunk in known {
            if self.facts().state == ffi::dmsnap_state::Active
                && chunk * self.chunk < self.facts().virtual_size
            {
                self.read(chunk);
            }
        }
        true
    }
}

fn errno_of(number: u8) -> i32 {
    -[libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EROFS][usize::from(number) % 4]
}
