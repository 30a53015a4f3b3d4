//! The blocking half of the ABI.

mod calls;

pub use calls::Call;

use std::ptr::null_mut;

use arbitrary::Arbitrary;
use dmsnap::ffi::{self, dmsnap_image, dmsnap_merge, dmsnap_storage};

use super::host::{Host, Manner};
use super::{Failed, check, made};
use crate::model::Model;

#[derive(Arbitrary, Clone, Debug)]
pub struct Scene {
    shift: u8,
    sectors: u8,
    cow: Manner,
    origin: Manner,
    origin_sectors: u8,
    calls: Vec<Call>,
}

struct Stage {
    merge: Option<Box<dmsnap_merge>>,
    image: *mut dmsnap_image,
    cow: Option<Box<dmsnap_storage>>,
    origin: Option<Box<dmsnap_storage>>,
    /// The layers that snapshots have put on top.
    tops: Vec<Box<Host>>,
    model: Option<Model>,
    trouble: bool,
    size: u64,
    value: u8,
}

pub fn run(scene: &Scene) {
    let chunk = 512_u64 << (scene.shift % 6);
    let disk = u64::from(scene.sectors) * 512;
    let cow = Host::new(if scene.cow.fixed { chunk * 40 } else { 0 }, scene.cow);
    let origin = Host::new(u64::from(scene.origin_sectors) * 512, scene.origin);
    origin.fill(&vec![0x91; usize::from(scene.origin_sectors) * 512]);
    let mut stage = Stage {
        merge: None,
        image: null_mut(),
        cow: Some(cow.storage()),
        origin: Some(origin.storage()),
        tops: Vec::new(),
        model: None,
        trouble: false,
        size: disk,
        value: 0,
    };
    if stage.create(chunk, disk).is_ok() && stage.open(chunk, 0).is_ok() {
        stage.learn();
        for call in scene.calls.iter().take(40) {
            if !stage.call(*call, chunk, &cow, &origin) {
                break;
            }
        }
    }
    stage.close();
    ffi::dmsnap_storage_free(stage.cow.take());
    ffi::dmsnap_storage_free(stage.origin.take());
    let hosts = [&cow, &origin].into_iter().chain(&stage.tops);
    for host in hosts {
        assert!(host.is_freed(), "free did not run");
    }
}

impl Stage {
    fn image(&self) -> Option<&dmsnap_image> {
        // SAFETY: NULL, or open until `close`.
        unsafe { self.image.as_ref() }
    }

    fn create(&mut self, chunk: u64, size: u64) -> Result<(), Failed> {
        let mut options = ffi::dmsnap_create_options_new();
        let set = options.as_deref_mut();
        check(ffi::dmsnap_create_options_set_chunk_size(set, chunk))?;
        check(ffi::dmsnap_create_options_set_size(
            options.as_deref_mut(),
            size,
        ))?;
        check(ffi::dmsnap_create_options_set_bare(
            options.as_deref_mut(),
            chunk < 4096,
        ))?;
        let result = check(ffi::dmsnap_image_create_on(
            self.cow.as_deref(),
            options.as_deref(),
        ));
        ffi::dmsnap_create_options_free(options);
        result
    }

    fn open(&mut self, chunk: u64, overflow: u8) -> Result<(), Failed> {
        let mut options = ffi::dmsnap_open_options_new();
        check(ffi::dmsnap_open_options_set_writable(
            options.as_deref_mut(),
            true,
        ))?;
        check(ffi::dmsnap_open_options_set_overflow_mode(
            options.as_deref_mut(),
            u32::from(overflow % 3),
        ))?;
        check(ffi::dmsnap_open_options_set_origin_storage(
            options.as_deref_mut(),
            self.origin.as_deref(),
        ))?;
        if chunk < 4096 {
            check(ffi::dmsnap_open_options_set_bare_size(
                options.as_deref_mut(),
                self.size,
            ))?;
        }
        let image = made(|out| {
            ffi::dmsnap_image_open_storage(self.cow.as_deref(), options.as_deref(), out)
        });
        ffi::dmsnap_open_options_free(options);
        self.image = Box::into_raw(image?);
        Ok(())
    }

    fn close(&mut self) {
        ffi::dmsnap_merge_free(self.merge.take());
        let image = std::mem::replace(&mut self.image, null_mut());
        if !image.is_null() {
            // SAFETY: the last call with this handle.
            let _ = check(unsafe { ffi::dmsnap_image_close(image) });
        }
    }

    fn disk(&self) -> u64 {
        made(|out| ffi::dmsnap_image_size(self.image(), out)).expect("an open image has a size")
    }

    /// What the image shows is what the model begins with.
    fn learn(&mut self) {
        let mut bytes = vec![0; self.disk() as usize];
        self.model = self.read(&mut bytes, 0).is_ok().then(|| Model::of(&bytes));
    }

    fn read(&self, bytes: &mut [u8], at: u64) -> Result<(), Failed> {
        // SAFETY: a buffer and its length.
        check(unsafe {
            ffi::dmsnap_image_read(self.image(), bytes.as_mut_ptr().cast(), bytes.len(), at)
        })
    }

    fn range(&self, at: u16, len: u16) -> (u64, u64) {
        let size = self.disk();
        let at = if size == 0 { 0 } else { u64::from(at) % size };
        (at, u64::from(len).min(size - at))
    }

    fn changed(&mut self, (at, len): (u64, u64), value: u8, result: Result<(), Failed>) {
        let range = at as usize..(at + len) as usize;
        let Some(model) = &mut self.model else { return };
        match result {
            _ if len == 0 => {}
            Ok(()) => model.write(range, value),
            Err(_) => model.doubt(range, value),
        }
    }
}
