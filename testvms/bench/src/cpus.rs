//! The same round trip on one CPU to four at the same time.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};

use rt::lab::Stop;
use rt::smp::{self, Cpu};
use rt::vmx::Vmx;
use rt::{acpi, apic, cpu, println};

use crate::Bench;
use crate::measures::CPUID;
use crate::rounds::{Handler, rounds};

/// The most CPUs that take part.
const MOST: usize = 4;
/// Rounds that are measured.
const ROUNDS: u64 = 256;
/// Conventional memory that nobody uses: the vector of start-up IPIs.
const VECTOR: u8 = 0x20;

/// CPUs that stand ready, and whether the measure is over.
static READY: AtomicU32 = AtomicU32::new(0);
static IS_OVER: AtomicBool = AtomicBool::new(false);
/// Rounds that other CPUs made meanwhile, so that they are known to have run.
static OTHERS: AtomicU64 = AtomicU64::new(0);

/// Measures with one CPU, then with one more each time.
pub fn run() -> Result<(), Stop> {
    let own = cpu::cpuid(1, 0).ebx >> 24;
    let ids = acpi::apic_ids().filter(|id| *id != own).take(MOST - 1);
    apic::enable();
    let pointer = prepare();
    measure(1, pointer);
    for (index, id) in (1..).zip(ids) {
        let cpu = Cpu::new(index, id);
        READY.store(0, SeqCst);
        if !cpu.restart(VECTOR) {
            return Err("a CPU does not start".into());
        }
        cpu.begin(keep_busy);
        if !smp::wait_for(|| READY.load(SeqCst) == 1) {
            return Err("a CPU does not come to its L2".into());
        }
        measure(index + 1, pointer);
    }
    IS_OVER.store(true, SeqCst);
    Ok(())
}

/// VMX operation on the CPU that runs this, and an L2 of its own at its first exit; gives its EPT pointer.
fn prepare() -> u64 {
    let vmx = Vmx::prepare().expect("a CPU with VMX");
    let mut bench = Bench::new(vmx);
    bench.vmx.enter().expect("VMXON with a good region");
    bench.start(&CPUID, 0, 0)
}

fn measure(cpus: usize, pointer: u64) {
    let _ = rounds(8, Handler::Bare, 2, pointer, 0);
    let before = OTHERS.load(SeqCst);
    let ticks = rounds(ROUNDS, Handler::Bare, 2, pointer, 0) / ROUNDS;
    println!("bench: cpus-{cpus} ticks={ticks}");
    assert!(
        cpus == 1 || OTHERS.load(SeqCst) != before,
        "the other CPUs did not run"
    );
}

/// What every other CPU does until the end.
fn keep_busy(_: usize) {
    let pointer = prepare();
    READY.store(1, SeqCst);
    while !IS_OVER.load(SeqCst) {
        let _ = rounds(8, Handler::Bare, 2, pointer, 0);
        OTHERS.fetch_add(8, SeqCst);
    }
}
