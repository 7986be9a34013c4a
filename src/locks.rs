//! Taking a lock, whoever panicked while holding it. In: a lock of the standard library; out: its guard.
//!
//! Such a lock is poisoned, which warns of a value that may be half changed. Here a poisoned lock is as good as another: what is
//! under one is changed in steps that each leave it whole, and no work that may panic is done in between. Refusing it would turn
//! one failed request into a server that fails them all.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Waits for the value, alone with it.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the value, to read it beside others who do.
pub fn read<T: ?Sized>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the value, to change it alone.
pub fn write<T: ?Sized>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn whoever_panics_with_a_lock_keeps_nobody_out() {
        let (mutex, shared) = (Mutex::new(0), RwLock::new(0));
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _held = (lock(&mutex), write(&shared));
            panic!("on purpose");
        }));
        assert!(panicked.is_err() && mutex.is_poisoned() && shared.is_poisoned());
        *lock(&mutex) += 1;
        *write(&shared) += 1;
        assert_eq!((*lock(&mutex), *read(&shared)), (1, 1));
    }
}
