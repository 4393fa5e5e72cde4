//! VMX operation and an L2 on each CPU.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use rt::{case, report};

use rt::gdt::MAX_CPUS;
use rt::l2_code;
use rt::page::Page;
use rt::vmx::vm::{Code, Mode, Outcome, Vm};
use rt::vmx::{Vmx, insn};
use umbra_vmcs::field;

use crate::Others;

l2_code! {
    /// Says that L2 runs, then spins.
    fn spin = "mov byte ptr [0x9000], 1", "2: pause", "jmp 2b";
    /// The same with interrupts on.
    fn spin_with_interrupts = "sti", "mov byte ptr [0x9000], 1", "2: pause", "jmp 2b";
    /// Says that L2 runs, then halts.
    fn halt = "mov byte ptr [0x9000], 1", "2: hlt", "jmp 2b";
    /// Adds the numbers below EDI up, with an exit for each, and ends.
    fn add = "xor esi, esi", "2: mov eax, 1", "cpuid", "add esi, edi", "dec edi", "jnz 2b", "vmcall";
    /// Counts in memory, with an exit after each.
    fn count = "2: inc dword ptr [0x9004]", "vmcall", "jmp 2b";
    fn end = "vmcall";
}

/// Code by a number, since work for another CPU takes no arguments.
pub fn spinning() -> Code {
    spin()
}
/// See [`spinning`].
pub fn spinning_with_interrupts() -> Code {
    spin_with_interrupts()
}
/// See [`spinning`].
pub fn halting() -> Code {
    halt()
}
/// See [`spinning`].
pub fn adding() -> Code {
    add()
}
/// See [`spinning`].
pub fn ending() -> Code {
    end()
}

/// See [`spinning`].
pub fn counting() -> Code {
    count()
}

/// Where [`counting`] counts.
const COUNT: u64 = 0x9004;
/// Where L2 says that it runs.
const FLAG: u64 = 0x9000;

/// One CPU's.
pub struct Lab {
    /// VMX operation.
    pub vmx: Vmx,
    /// L2.
    pub vm: Vm,
}

struct Labs(UnsafeCell<[Option<Lab>; MAX_CPUS]>);

// SAFETY: filled before other CPUs run; then each CPU uses its own entry, and the first CPU looks
// only at the flag in L2's memory.
unsafe impl Sync for Labs {}

static LABS: Labs = Labs(UnsafeCell::new([const { None }; MAX_CPUS]));

/// What a CPU found, for the first CPU to print.
pub static RESULTS: [[AtomicU64; 4]; MAX_CPUS] =
    [const { [const { AtomicU64::new(0) }; 4] }; MAX_CPUS];
/// How far a CPU has come.
pub static STEPS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// Makes them; `false` without VMX.
pub fn prepare(others: &Others) -> bool {
    for index in core::iter::once(0).chain(others.iter().map(|cpu| cpu.index)) {
        let vmx = match Vmx::prepare() {
            Ok(vmx) => vmx,
            Err(why) => {
                report::lacks(format_args!("an L2: {why}"));
                return false;
            }
        };
        let vm = Vm::new(&vmx);
        // SAFETY: no other CPU runs yet.
        unsafe { (*LABS.0.get())[index] = Some(Lab { vmx, vm }) };
    }
    true
}

/// The lab of the CPU that runs this.
pub fn own(index: usize) -> &'static mut Lab {
    // SAFETY: see `Labs`: `index` is the caller's own CPU, which calls this once at a time.
    unsafe { (*LABS.0.get())[index].as_mut() }.expect("a CPU that was prepared")
}

/// Whether L2 of a CPU has said that it runs.
pub fn is_running(index: usize) -> bool {
    // SAFETY: reads the address only; the memory is read by a volatile operation.
    let memory = unsafe { (*LABS.0.get())[index].as_ref() }.map(|lab| lab.vm.memory);
    memory.is_some_and(|memory| memory.read::<u8>(FLAG) != 0)
}

/// The VMCS of a CPU, which no CPU has current.
pub fn vmcs_of(index: usize) -> Page {
    // SAFETY: as for `is_running`: a copy of an address that changes only on that CPU.
    unsafe { (*LABS.0.get())[index].as_ref() }
        .expect("a CPU that was prepared")
        .vm
        .vmcs
}

/// What L2 of a CPU has counted.
pub fn counted(index: usize) -> u32 {
    // SAFETY: as for `is_running`.
    unsafe { (*LABS.0.get())[index].as_ref() }.map_or(0, |lab| lab.vm.memory.read(COUNT))
}

/// Takes back what L2 of a CPU said before; the CPU is not in L2.
pub fn forget(index: usize) {
    // SAFETY: as for `is_running`.
    if let Some(lab) = unsafe { (*LABS.0.get())[index].as_ref() } {
        lab.vm.memory.write(FLAG, 0u8);
    }
}

/// Enters VMX operation and prepares L2 with this code.
pub fn enter_vmx(index: usize, code: &Code) -> &'static mut Lab {
    let lab = own(index);
    lab.vmx.enter().expect("VMXON");
    let with_ept = lab.vm.can(Mode::Long, true);
    lab.vm.reset(Mode::Long, with_ept);
    lab.vm.load(code);
    lab
}

/// Leaves VMX operation.
pub fn leave_vmx() {
    Vmx::leave().expect("VMXOFF");
}

/// Enters L2 and stores what came of it: reason, qualification, interruption information, RIP.
pub fn run_and_store(index: usize) {
    let outcome = own(index).vm.run();
    let values = match outcome {
        Outcome::Exit(exit) => [
            u64::from(exit.reason),
            exit.qualification,
            if exit.reason <= 1 {
                u64::from(exit.interruption)
            } else {
                0
            },
            insn::read(field::GUEST_RIP),
        ],
        _ => [u64::MAX; 4],
    };
    for (to, value) in RESULTS[index].iter().zip(values) {
        to.store(value, SeqCst);
    }
}

/// Prints what [`run_and_store`] stored.
pub fn show(name: &str, index: usize) {
    let [reason, qualification, interruption, rip] =
        [0, 1, 2, 3].map(|n: usize| RESULTS[index][n].load(SeqCst));
    case!("{name}: exit {reason} q={qualification:x} int={interruption:x} rip={rip:x}");
}
