//! The stop of all CPUs, under a model checker: every order in which the CPUs'
//! reads and writes can meet.

use std::cell::Cell;

use loom::sync::Arc;
use loom::sync::atomic::Ordering::{AcqRel, Acquire, Release, SeqCst};
use loom::sync::atomic::{AtomicBool, AtomicU32, fence};
use loom::thread;
use umbra_nmi::stop::{Request, Stop, Word};

struct Checked(AtomicU32);

impl Word for Checked {
    fn load(&self) -> u32 {
        self.0.load(Acquire)
    }
    fn store(&self, value: u32) {
        self.0.store(value, Release);
    }
    fn swap_if(&self, old: u32, new: u32) -> u32 {
        match self.0.compare_exchange(old, new, AcqRel, Acquire) {
            Ok(was) | Err(was) => was,
        }
    }
    fn fence() {
        fence(SeqCst);
    }
}

const CPUS: usize = 3;

/// The machine: what the CPUs share, and what the hardware does.
struct Shared {
    stop: Stop<CPUS, Checked>,
    /// An INIT is pending at that CPU.
    init: [AtomicBool; CPUS],
    /// That CPU runs L1 code.
    in_l1: [AtomicBool; CPUS],
}

impl Shared {
    fn new() -> Arc<Self> {
        let shared = Shared {
            stop: Stop::with_words(|| Checked(AtomicU32::new(0))),
            init: core::array::from_fn(|_| AtomicBool::new(false)),
            in_l1: core::array::from_fn(|_| AtomicBool::new(false)),
        };
        Arc::new(shared)
    }

    /// A CPU whose L1 makes `exits` exits and then spins until an INIT.
    fn run_l1(&self, cpu: usize, exits: usize) {
        for exit in 0.. {
            if !self.stop.may_enter() {
                break;
            }
            self.in_l1[cpu].store(true, Release);
            while exit >= exits && !self.init[cpu].load(Acquire) {
                thread::yield_now();
            }
            self.in_l1[cpu].store(false, Release);
        }
        self.stop.stopped(cpu);
    }

    /// The leader's part.
    fn lead(&self, me: usize) {
        for (cpu, init) in self.init.iter().enumerate() {
            if cpu != me {
                init.store(true, Release);
            }
        }
        // On the machine this has a bound; here it must end by itself.
        while self.stop.still_running().is_some() {
            thread::yield_now();
        }
        for in_l1 in &self.in_l1 {
            assert!(!in_l1.load(Acquire), "a CPU runs L1 after the stop");
        }
    }

    fn fail(&self, me: usize) -> Request {
        let request = self.stop.request(me);
        match request {
            Request::Leads => self.lead(me),
            Request::Follows(_) => self.stop.stopped(me),
        }
        request
    }
}

fn count(model: impl Fn() + Sync + Send + 'static) {
    thread_local!(static ORDERS: Cell<u64> = const { Cell::new(0) });
    ORDERS.set(0);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(move || {
        ORDERS.set(ORDERS.get() + 1);
        model();
    });
    println!("{} orders", ORDERS.get());
    assert!(ORDERS.get() > 10, "the model has no concurrency left");
}

#[test]
fn a_cpu_in_l1_stops() {
    count(|| {
        let shared = Shared::new();
        shared.stop.set_running(0);
        shared.stop.set_running(1);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || shared.run_l1(1, 1))
        };
        assert_eq!(shared.fail(0), Request::Leads);
        other.join().unwrap();
        assert!(!shared.stop.may_enter());
    });
}

#[test]
fn two_fail_at_once_and_a_third_runs() {
    count(|| {
        let shared = Shared::new();
        for cpu in 0..CPUS {
            shared.stop.set_running(cpu);
        }
        let fails = {
            let shared = shared.clone();
            thread::spawn(move || shared.fail(1))
        };
        let runs = {
            let shared = shared.clone();
            thread::spawn(move || shared.run_l1(2, 0))
        };
        let mine = shared.fail(0);
        let other = fails.join().unwrap();
        runs.join().unwrap();
        match (mine, other) {
            (Request::Leads, Request::Follows(0)) | (Request::Follows(1), Request::Leads) => {}
            both => panic!("who leads? {both:?}"),
        }
    });
}

/// A CPU in wait-for-SIPI does not hear INIT. It is not waited for, and the
/// SIPI that wakes it, at whatever moment, does not get it into L1.
#[test]
fn a_cpu_in_wait_for_sipi_is_not_waited_for() {
    count(|| {
        let shared = Shared::new();
        shared.stop.set_running(0);
        let other = {
            let shared = shared.clone();
            thread::spawn(move || {
                let stop = &shared.stop;
                stop.set_running(1);
                stop.set_waits_for_sipi(1);
                if stop.may_enter() {
                    // In wait-for-SIPI; the SIPI is here already.
                    stop.set_running(1);
                }
                shared.run_l1(1, 0);
            })
        };
        assert_eq!(shared.fail(0), Request::Leads);
        other.join().unwrap();
    });
}

/// A CPU that stays in wait-for-SIPI for ever.
#[test]
fn a_cpu_that_sleeps_for_ever_does_not_hold_up_the_stop() {
    let stop: Stop<2> = Stop::new();
    stop.set_running(0);
    stop.set_waits_for_sipi(1);
    assert_eq!(stop.request(0), Request::Leads);
    assert_eq!(stop.still_running(), None);
}

#[test]
fn an_index_out_of_range_takes_no_part() {
    let stop: Stop<2> = Stop::new();
    stop.set_running(7);
    assert_eq!(stop.still_running(), None);
    assert_eq!(stop.request(usize::MAX), Request::Leads);
    assert!(!stop.may_enter());
    stop.set_running(1);
    assert_eq!(stop.still_running(), Some(1));
    assert_eq!(stop.request(1), Request::Follows(u32::MAX as usize - 1));
    assert_eq!(stop.still_running(), None);
}
