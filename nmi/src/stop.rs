//! Stopping every CPU for good, after an error that L0 cannot survive.
//!
//! There is no way back, and that is what makes it simple: see
//! `docs/decisions/0008-nmi-stop-only.md`. The CPU with the error calls
//! [`Stop::request`], then (after a fence, which `request` ends with) sends INIT
//! to all others, then polls [`Stop::still_running`] up to a bound of its
//! choice. A CPU in VMX non-root operation exits by the INIT; one in L0 keeps
//! the INIT pending and comes past [`Stop::may_enter`] before its next VM entry;
//! one that entered just before the request exits at once by the pending INIT;
//! one in wait-for-SIPI executes nothing, and comes past `may_enter` when a SIPI
//! wakes it. Nobody waits for a lock, and nobody is waited for without a bound.
//!
//! Once a stop is requested no L1 runs, so an INIT of L0 cannot reach one, and
//! no INIT of L1 is left to be swallowed: before that, every INIT is L1's.

use core::sync::atomic::{AtomicU32, Ordering, fence};

/// The atomic word that [`Stop`] is built on. Tests put a model checker's own
/// atomic here.
pub trait Word {
    /// Reads, with acquire ordering.
    fn load(&self) -> u32;
    /// Writes, with release ordering.
    fn store(&self, value: u32);
    /// Writes `new` if the word is `old`; returns what the word was. Acquires
    /// and releases.
    fn swap_if(&self, old: u32, new: u32) -> u32;
    /// What this CPU wrote before is seen by all before it reads on.
    fn fence();
}

impl Word for AtomicU32 {
    fn load(&self) -> u32 {
        self.load(Ordering::Acquire)
    }
    fn store(&self, value: u32) {
        self.store(value, Ordering::Release);
    }
    fn swap_if(&self, old: u32, new: u32) -> u32 {
        match self.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire) {
            Ok(was) | Err(was) => was,
        }
    }
    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// Not taking part: never started, or its index is out of range.
const ABSENT: u32 = 0;
const RUNNING: u32 = 1;
const WAITS_FOR_SIPI: u32 = 2;
const STOPPED: u32 = 3;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// This CPU leads: it sends the INITs and reports.
    Leads,
    /// That CPU was first: call [`Stop::stopped`] and halt.
    Follows(usize),
}

/// Shared by all CPUs, `CPUS` of them at most. CPUs are named by their index,
/// not by APIC id; an index out of range takes no part and may not enter once
/// a stop is requested.
#[derive(Debug)]
pub struct Stop<const CPUS: usize, W: Word = AtomicU32> {
    /// 0, or the index of the CPU that leads, plus 1.
    leader: W,
    phase: [W; CPUS],
}

impl<const CPUS: usize> Default for Stop<CPUS> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const CPUS: usize> Stop<CPUS> {
    /// No stop requested, no CPU started.
    pub const fn new() -> Self {
        Self {
            leader: AtomicU32::new(0),
            phase: [const { AtomicU32::new(ABSENT) }; CPUS],
        }
    }
}

impl<const CPUS: usize, W: Word> Stop<CPUS, W> {
    /// As [`Stop::new`], on words that `zero` makes.
    pub fn with_words(mut zero: impl FnMut() -> W) -> Self {
        Self {
            leader: zero(),
            phase: core::array::from_fn(|_| zero()),
        }
    }

    fn set_phase(&self, cpu: usize, phase: u32) {
        if let Some(word) = self.phase.get(cpu) {
            word.store(phase);
        }
        // The phase first, then the look at the leader; the leader does it the
        // other way round, so one of the two sees the other.
        W::fence();
    }

    /// This CPU is about to run L1 code: when it starts, and when a SIPI has
    /// woken it. Before [`Stop::may_enter`].
    pub fn set_running(&self, cpu: usize) {
        self.set_phase(cpu, RUNNING);
    }

    /// This CPU is about to enter wait-for-SIPI. Before [`Stop::may_enter`].
    pub fn set_waits_for_sipi(&self, cpu: usize) {
        self.set_phase(cpu, WAITS_FOR_SIPI);
    }

    /// Asked before every VM entry; one load. If false: [`Stop::stopped`],
    /// then halt with interrupts off.
    pub fn may_enter(&self) -> bool {
        self.leader.load() == 0
    }

    /// This CPU will run no L1 code any more.
    pub fn stopped(&self, cpu: usize) {
        self.set_phase(cpu, STOPPED);
    }

    /// Asks for the stop. The caller counts as stopped.
    pub fn request(&self, cpu: usize) -> Request {
        self.stopped(cpu);
        let me = u32::try_from(cpu).unwrap_or(u32::MAX).saturating_add(1);
        let before = self.leader.swap_if(0, me);
        W::fence();
        match before {
            0 => Request::Leads,
            other => Request::Follows(usize::try_from(other - 1).unwrap_or(usize::MAX)),
        }
    }

    /// The first CPU that has not stopped yet and could still run L1 code.
    /// `None`: all are stopped or can wake only into [`Stop::may_enter`].
    pub fn still_running(&self) -> Option<usize> {
        self.phase.iter().position(|word| word.load() == RUNNING)
    }
}
