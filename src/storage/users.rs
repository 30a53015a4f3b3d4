//! Who in this program uses a storage, and what for.
//!
//! A file's lock keeps other programs out, and other handles of this one. It knows nothing of two users of one handle: an image, a layer
//! over it as its origin, a check, somebody who makes a new store there. Those count themselves here. They may meet under the rules of
//! the lock: one who writes is alone, those who rely on the content meet each other, and who only looks meets everybody. The storage's
//! own lock is as strong as the strongest of them asks for.
#![forbid(unsafe_code)]

use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{LockMode, SharedStorage, Storage};
use crate::error::{Error, ErrorKind, Result};

/// Who uses a storage in this program. Each storage has one; what wraps another storage passes on that one's.
#[derive(Debug, Default)]
pub struct Users {
    counts: Mutex<Counts>,
}

/// What a user does with the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Looks, and bears with whatever happens.
    Onlooker,
    /// Reads through the same layer as a reader does, so that it can bear with that one's turning into a writer, not with a stranger.
    Companion,
    /// Relies on the content.
    Reader,
    /// Changes the content.
    Writer,
}

impl From<LockMode> for Role {
    fn from(mode: LockMode) -> Role {
        match mode {
            LockMode::None => Role::Onlooker,
            LockMode::Reader => Role::Reader,
            LockMode::Writer => Role::Writer,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    onlookers: usize,
    companions: usize,
    readers: usize,
    writers: usize,
}

impl Counts {
    fn of(&mut self, role: Role) -> &mut usize {
        match role {
            Role::Onlooker => &mut self.onlookers,
            Role::Companion => &mut self.companions,
            Role::Reader => &mut self.readers,
            Role::Writer => &mut self.writers,
        }
    }

    /// The lock that serves all, if there is anybody.
    fn strongest(&self) -> Option<LockMode> {
        match self {
            Counts { writers: 1.., .. } => Some(LockMode::Writer),
            Counts { readers: 1.., .. }
            | Counts {
                companions: 1.., ..
            } => Some(LockMode::Reader),
            Counts { onlookers: 1.., .. } => Some(LockMode::None),
            _ => None,
        }
    }

    /// Whether somebody who was `old` until now may be `new` beside those who are counted.
    fn admit(&self, old: Option<Role>, new: Role) -> Result<()> {
        let strangers = old.is_none() && self.companions > 0;
        let message = match new {
            Role::Onlooker => return Ok(()),
            _ if self.writers > 0 => "this program writes to it already, through the same storage",
            Role::Writer if self.readers > 0 || strangers => {
                "this program reads it already, through the same storage, and relies on its content"
            }
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Busy, message))
    }
}

impl Users {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One user's claim on a storage. Ends when dropped; the last one to go leaves the storage unlocked.
#[derive(Debug)]
pub(crate) struct Hold {
    storage: SharedStorage,
    role: Mutex<Role>,
}

impl Hold {
    /// Enters `storage`, with the lock that goes with it. [`ErrorKind::Busy`] if that contradicts another user, here or elsewhere.
    pub(crate) fn take(storage: &SharedStorage, mode: LockMode) -> Result<Hold> {
        let role = Role::from(mode);
        switch(&**storage, None, role)?;
        Ok(Hold {
            storage: Arc::clone(storage),
            role: Mutex::new(role),
        })
    }

    pub(crate) fn storage(&self) -> &SharedStorage {
        &self.storage
    }

    /// Does something else with it from now on. After a failure all is as it was.
    pub(crate) fn change(&self, mode: LockMode) -> Result<()> {
        self.become_one(mode.into())
    }

    /// Goes on reading through the same layer as another reader, who may write some day.
    pub(crate) fn accompany(&self) -> Result<()> {
        self.become_one(Role::Companion)
    }

    fn become_one(&self, new: Role) -> Result<()> {
        let mut role = self.role.lock().unwrap_or_else(PoisonError::into_inner);
        switch(&*self.storage, Some(*role), new)?;
        *role = new;
        Ok(())
    }
}

fn switch(storage: &dyn Storage, old: Option<Role>, new: Role) -> Result<()> {
    let mut counts = storage.users().counts();
    let mut after = *counts;
    if let Some(old) = old {
        *after.of(old) -= 1;
    }
    after
        .admit(old, new)
        .map_err(|error| error.with_path(storage.name()))?;
    *after.of(new) += 1;
    // Not asked again for what it has: a file's writes would fail meanwhile.
    match after.strongest() {
        Some(mode) if counts.strongest() != Some(mode) => storage.lock(mode)?,
        _ => {}
    }
    *counts = after;
    Ok(())
}

impl Drop for Hold {
    fn drop(&mut self) {
        let role = *self.role.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut counts = self.storage.users().counts();
        let before = counts.strongest();
        *counts.of(role) -= 1;
        let left = counts.strongest();
        if left != before {
            let _ = self.storage.lock(left.unwrap_or(LockMode::None));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    fn writable(storage: &SharedStorage) -> bool {
        storage.write_at(b"x", 0).is_ok()
    }

    #[test]
    fn test_users_meet_as_programs_do() {
        use LockMode::{None, Reader, Writer};
        for (first, second, fits) in [
            (None, Writer, true),
            (Writer, None, true),
            (Reader, Reader, true),
            (Reader, Writer, false),
            (Writer, Reader, false),
            (Writer, Writer, false),
        ] {
            let storage: SharedStorage = Arc::new(MemoryStorage::new());
            let one = Hold::take(&storage, first).unwrap();
            let two = Hold::take(&storage, second);
            assert_eq!(two.is_ok(), fits, "{first:?} and then {second:?}");
            let writes = first == Writer || fits && second == Writer;
            assert_eq!(writable(&storage), writes, "{first:?}, {second:?}");
            if let Err(error) = two {
                assert_eq!(error.kind(), ErrorKind::Busy);
                drop(one);
                assert!(!writable(&storage), "unlocked when all are gone");
                drop(Hold::take(&storage, second).unwrap());
            }
        }
    }

    #[test]
    fn test_who_comes_and_goes_leaves_the_others_lock_alone() {
        let storage: SharedStorage = Arc::new(MemoryStorage::new());
        let writer = Hold::take(&storage, LockMode::Writer).unwrap();
        drop(Hold::take(&storage, LockMode::None).unwrap());
        assert!(writable(&storage));
        assert!(Hold::take(&storage, LockMode::Writer).is_err());
        assert!(writable(&storage), "the refused one changed nothing");
        writer.change(LockMode::Reader).unwrap();
        assert!(!writable(&storage));
        let other = Hold::take(&storage, LockMode::Reader).unwrap();
        assert!(writer.change(LockMode::Writer).is_err());
        drop(other);
        writer.change(LockMode::Writer).unwrap();
        assert!(writable(&storage));
    }

    #[test]
    fn test_a_companion_bears_with_the_one_it_reads_through() {
        let storage: SharedStorage = Arc::new(MemoryStorage::new());
        let companion = Hold::take(&storage, LockMode::Reader).unwrap();
        let reader = Hold::take(&storage, LockMode::Reader).unwrap();
        companion.accompany().unwrap();
        reader.change(LockMode::Writer).unwrap();
        assert!(Hold::take(&storage, LockMode::Reader).is_err());
        drop(reader);
        assert!(
            Hold::take(&storage, LockMode::Writer).is_err(),
            "a stranger"
        );
        companion.change(LockMode::Writer).unwrap();
    }
}
