//! Several threads write, zero, read and flush parts of the same chunks while another one merges, snapshots and grows the image.
#![allow(clippy::unwrap_used, reason = "a failed test is to stop")]

mod image_common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use dmsnap::{ByteRange, Image};
use image_common::*;

const CHUNK: u64 = 4096;
const SIZE: u64 = 60 * CHUNK;
const THREADS: u64 = 4;
/// Each thread owns every fourth stripe, so that all share every chunk.
const STRIPE: u64 = 600;
const OPERATIONS: u32 = 1500;

struct Worker<'a> {
    image: &'a Image,
    number: u64,
    state: u64,
    /// The whole disk; only the stripes of this thread count.
    disk: Vec<u8>,
}

impl Worker<'_> {
    fn random(&mut self, below: u64) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.state >> 33) % below
    }

    /// A range inside one stripe of this thread.
    fn range(&mut self) -> ByteRange {
        let stripe = self.random(SIZE / STRIPE / THREADS) * THREADS + self.number;
        let from = self.random(STRIPE);
        let len = 1 + self.random(STRIPE - from);
        ByteRange::new(stripe * STRIPE + from, len)
    }

    fn step(&mut self) {
        let range = self.range();
        let part = range.start as usize..range.end() as usize;
        match self.random(10) {
            0..=4 => {
                let bytes = pattern(self.state, range.len as usize);
                self.image.write(&bytes, range.start).unwrap();
                self.disk[part].copy_from_slice(&bytes);
            }
            kind @ 5..=6 => {
                self.image.write_zeroes(range, kind == 5).unwrap();
                self.disk[part].fill(0);
            }
            7..=8 => {
                let mut found = vec![0xee; part.len()];
                self.image.read(&mut found, range.start).unwrap();
                assert_same(
                    &found,
                    &self.disk[part],
                    &format!("thread {}, {range}", self.number),
                );
            }
            _ => self.image.flush().unwrap(),
        }
    }
}

/// What the stripes of all threads should hold.
fn joined(disks: &[Vec<u8>]) -> Vec<u8> {
    let owner = |at: usize| &disks[(at as u64 / STRIPE % THREADS) as usize];
    (0..SIZE as usize).map(|at| owner(at)[at]).collect()
}

#[test]
fn test_threads_and_jobs_do_not_lose_each_others_writes() {
    for round in 0..6_u64 {
        let base = pattern(round, SIZE as usize);
        let (image, _, origin) = image_over(&base, CHUNK);
        let running = AtomicUsize::new(THREADS as usize);
        let disks: Vec<Vec<u8>> = thread::scope(|scope| {
            let workers: Vec<_> = (0..THREADS)
                .map(|number| {
                    let (image, running, disk) = (&image, &running, base.clone());
                    scope.spawn(move || {
                        let state = round * 1000 + number;
                        let mut worker = Worker {
                            image,
                            number,
                            state,
                            disk,
                        };
                        (0..OPERATIONS).for_each(|_| worker.step());
                        running.fetch_sub(1, Ordering::SeqCst);
                        worker.disk
                    })
                })
                .collect();
            let mut jobs = 0;
            while running.load(Ordering::SeqCst) > 0 {
                job(&image, jobs);
                jobs += 1;
            }
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .collect()
        });
        let expected = joined(&disks);
        assert_same(&contents(&image)[..SIZE as usize], &expected, "the image");
        image.merge(&mut |_| true).unwrap();
        assert_same(&contents(&image)[..SIZE as usize], &expected, "merged");
        image.close().unwrap();
        assert_eq!(origin.size().unwrap() % 512, 0);
    }
}

fn job(image: &Image, number: u64) {
    match number % 8 {
        3 if number < 24 => image
            .snapshot_to(memory(), None, Some(chunk(4096 << (number % 3))))
            .unwrap(),
        5 if number < 40 => image.resize(image.size() + 5 * 512, false).unwrap(),
        7 => {
            // Given up after a step.
            let mut merge = image.start_merge().unwrap();
            merge.step().unwrap();
        }
        _ => image.merge(&mut |_| true).unwrap(),
    }
}
