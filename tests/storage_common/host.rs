//! A host program with its own I/O, in all the ways that hosts differ.

use std::io::{self, IoSlice, IoSliceMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dmsnap::storage::{HostAlignment, HostCallbacks, MemoryStorage, Storage, StorageExtent};
use dmsnap::units::ByteRange;

/// Keeps bytes in memory. Refuses what it was promised not to get.
#[derive(Clone)]
pub(crate) struct Host {
    pub(crate) bytes: Arc<MemoryStorage>,
    /// Most bytes moved per call.
    pub(crate) at_most: usize,
    /// Every so many-th transfer is interrupted.
    pub(crate) interrupted: usize,
    pub(crate) alignment: HostAlignment,
    /// Whether it offers more than the four callbacks that are needed.
    pub(crate) complete: bool,
    /// The errno that all transfers and flushes end with.
    pub(crate) fails: Option<i32>,
    pub(crate) transfers: Arc<AtomicUsize>,
}

impl Host {
    pub(crate) fn new(bytes: MemoryStorage) -> Host {
        Host {
            bytes: Arc::new(bytes),
            at_most: usize::MAX,
            interrupted: usize::MAX,
            alignment: HostAlignment::default(),
            complete: true,
            fails: None,
            transfers: Arc::default(),
        }
    }

    fn begin(
        &self,
        offset: u64,
        lens: &mut dyn Iterator<Item = (usize, usize)>,
    ) -> io::Result<usize> {
        self.flush()?;
        let count = self.transfers.fetch_add(1, Ordering::Relaxed);
        if count % self.interrupted == self.interrupted - 1 {
            return Err(io::Error::from_raw_os_error(libc::EINTR));
        }
        let request = self.alignment.request as usize;
        let mut total = 0;
        for (address, len) in lens {
            let fits = len % request == 0 && address % self.alignment.memory as usize == 0;
            if !fits {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            }
            total += len;
        }
        if !offset.is_multiple_of(request as u64) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // Short transfers stay aligned, as those of real hosts do.
        Ok(total.min((self.at_most / request).max(1) * request))
    }
}

fn errno(error: &dmsnap::error::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

impl HostCallbacks for Host {
    fn preadv(&self, bufs: &mut [IoSliceMut<'_>], offset: u64) -> io::Result<usize> {
        assert!(bufs.len() <= 1024);
        let mut lens = bufs.iter().map(|buf| (buf.as_ptr() as usize, buf.len()));
        let most = self.begin(offset, &mut lens)?;
        let size = self.bytes.size().map_err(|error| errno(&error))?;
        let most = most.min(size.saturating_sub(offset) as usize);
        let mut data = vec![0; most];
        self.bytes
            .read_at(&mut data, offset)
            .map_err(|error| errno(&error))?;
        let mut rest = &data[..];
        for buf in bufs {
            let (now, later) = rest.split_at(buf.len().min(rest.len()));
            buf[..now.len()].copy_from_slice(now);
            rest = later;
        }
        Ok(most)
    }

    fn pwritev(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        assert!(bufs.len() <= 1024);
        let most = self.begin(
            offset,
            &mut bufs.iter().map(|buf| (buf.as_ptr() as usize, buf.len())),
        )?;
        let data: Vec<u8> = bufs
            .iter()
            .flat_map(|buf| buf.iter().copied())
            .take(most)
            .collect();
        self.bytes
            .write_at(&data, offset)
            .map_err(|error| errno(&error))?;
        Ok(most)
    }

    fn flush(&self) -> io::Result<()> {
        self.fails
            .map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    fn size(&self) -> io::Result<u64> {
        self.bytes.size().map_err(|error| errno(&error))
    }

    fn is_growable(&self) -> bool {
        self.bytes.is_growable()
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        self.bytes.set_size(size).map_err(|error| errno(&error))
    }

    fn write_zeroes(&self, range: ByteRange, unmap: bool) -> Option<io::Result<()>> {
        let request = u64::from(self.alignment.request);
        assert!(
            range.start.is_multiple_of(request) && range.len.is_multiple_of(request),
            "{range}"
        );
        self.complete.then(|| {
            self.bytes
                .write_zeroes(range, unmap)
                .map_err(|error| errno(&error))
        })
    }

    fn discard(&self, range: ByteRange) -> Option<io::Result<()>> {
        self.complete
            .then(|| self.bytes.discard(range).map_err(|error| errno(&error)))
    }

    fn extent_at(&self, offset: u64) -> Option<io::Result<StorageExtent>> {
        self.complete
            .then(|| self.bytes.extent_at(offset).map_err(|error| errno(&error)))
    }

    fn alignment(&self) -> HostAlignment {
        self.alignment
    }
}
