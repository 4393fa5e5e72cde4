//! What CPUs share: values set once at boot, and a spin lock.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

/// A value that the first CPU sets once at boot and everybody reads after.
pub struct BootCell<T> {
    is_set: AtomicBool,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: written once, before `is_set` is published with Release order; only
// shared references are handed out afterwards.
unsafe impl<T: Send + Sync> Sync for BootCell<T> {}

impl<T> BootCell<T> {
    /// An empty cell.
    pub const fn new() -> Self {
        Self {
            is_set: AtomicBool::new(false),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Sets the value. The first CPU alone calls this, before any other CPU
    /// runs; a second time is a bug of L0's.
    pub fn set(&self, value: T) {
        assert!(
            !self.is_set.load(Ordering::Acquire),
            "a boot value set twice"
        );
        // SAFETY: one CPU runs, and no reference was handed out yet.
        unsafe { (*self.value.get()).write(value) };
        self.is_set.store(true, Ordering::Release);
    }

    /// The value; asking for one that was not set is a bug of L0's.
    pub fn get(&self) -> &T {
        self.try_get().expect("a boot value asked for too early")
    }

    /// The value, if it was set.
    pub fn try_get(&self) -> Option<&T> {
        if !self.is_set.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: it was written before `is_set` became true and is never
        // written again; `MaybeUninit<T>` lies in memory like `T`.
        Some(unsafe { &*self.value.get().cast::<T>() })
    }
}

/// A lock that spins. Never taken on the way of a VM exit that L1 can bring
/// about at will, except to take turns on the console.
pub struct SpinLock<T> {
    is_locked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the lock hands its value to one CPU at a time.
unsafe impl<T: Send> Sync for SpinLock<T> {}

impl<T> SpinLock<T> {
    /// An open lock around `value`.
    pub const fn new(value: T) -> Self {
        Self {
            is_locked: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Guard<'_, T> {
        loop {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            core::hint::spin_loop();
        }
    }

    /// Takes the lock if it is open.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.is_locked
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(|_| Guard { lock: self })
    }

    /// Waits for the lock, but not for ever: for a CPU about to stop for good,
    /// which may have been interrupted while it held it.
    pub fn lock_or_break(&self) -> Guard<'_, T> {
        for _ in 0..10_000_000u32 {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            core::hint::spin_loop();
        }
        self.is_locked.store(true, Ordering::Relaxed);
        Guard { lock: self }
    }
}

/// Holds a [`SpinLock`].
pub struct Guard<'a, T> {
    lock: &'a SpinLock<T>,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this CPU holds the lock.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this CPU holds the lock, and `self` is borrowed uniquely.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.lock.is_locked.store(false, Ordering::Release);
    }
}
