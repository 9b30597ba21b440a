//! Locks, atomics and threads of the paths that many threads take together, through one door: those of the standard
//! library, or, with the feature `shuttle`, those of a scheduler that tries interleavings one after another
//! (`tests/interleavings`).

#[cfg(feature = "shuttle")]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread,
};
#[cfg(not(feature = "shuttle"))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread,
};
