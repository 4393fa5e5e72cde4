//! The bench: one L2 that is made anew for each case, and what no case may break.

use core::fmt::Arguments;
use core::ops::Range;

use rt::page::Page;
use rt::vmx::insn::{self, vmwrite_raw};
use rt::vmx::vm::{Code, Mode, Outcome, Vm, layout};
use rt::vmx::{Vmx, VmxError, ept};
use rt::{cpu, report};
use umbra_vmcs::controls::Proc2;
use umbra_vmcs::field::Field;

use crate::place::{self, Kind, MAX_PLACES, Place};

code64! {
    fn sane_code = "mov dword ptr [0x9000], 0x5afe", "mov eax, 0", "cpuid", "vmcall";
}

/// L2's linear and guest-physical address of the page under test; nothing else is there.
pub const TARGET: u64 = 0x10_0000;
/// Basic exit reasons that the groups look for.
#[allow(missing_docs)]
pub mod reason {
    pub const EXCEPTION: u16 = 0;
    pub const EXTERNAL_INTERRUPT: u16 = 1;
    pub const TRIPLE_FAULT: u16 = 2;
    pub const INIT: u16 = 3;
    pub const CPUID: u16 = 10;
    pub const VMCALL: u16 = 18;
    pub const IO: u16 = 30;
    pub const RDMSR: u16 = 31;
    pub const WRMSR: u16 = 32;
    pub const ENTRY_GUEST_STATE: u16 = 33;
    pub const ENTRY_MSR: u16 = 34;
    pub const APIC_ACCESS: u16 = 44;
    pub const EPT_VIOLATION: u16 = 48;
    pub const EPT_MISCONFIGURATION: u16 = 49;
    pub const VMFUNC: u16 = 59;
    pub const PML_FULL: u16 = 62;
}

/// The bench.
pub struct Lab {
    /// VMX operation.
    pub vmx: Vmx,
    /// L2.
    pub vm: Vm,
    /// What a hypervisor below hides.
    pub hidden: Option<Range<u64>>,
    places: [Option<Place>; MAX_PLACES],
}

impl Lab {
    /// A bench in VMX operation.
    pub fn new(vmx: Vmx, hidden: Option<Range<u64>>) -> Self {
        let vm = Vm::new(&vmx);
        let own = [vmx.region.address(), vm.vmcs.address()];
        let places = place::all(&hidden, Page::alloc(1).address(), own);
        Self {
            vmx,
            vm,
            hidden,
            places,
        }
    }

    /// Runs a group, between two proofs that all is well.
    pub fn group(&mut self, name: &'static str, run: fn(&mut Self)) {
        report::group(format_args!("{name}"));
        self.sane(format_args!("before"));
        run(self);
        self.sane(format_args!("after"));
    }

    /// All places.
    pub fn places(&self) -> impl Iterator<Item = Place> + use<> {
        self.places.into_iter().flatten()
    }

    /// All places but the program's own VMXON region and VMCS: what is written there by means other
    /// than VMX instructions has effects that the SDM leaves open, so that only a CPU which is known to
    /// keep its VMCSs elsewhere, as a hypervisor below does, is asked to take it.
    pub fn writable_places(&self) -> impl Iterator<Item = Place> + use<> {
        let takes_own = self.hidden.is_some();
        self.places()
            .filter(move |place| takes_own || place.kind != Kind::Own)
    }

    /// L2 anew, in `mode`; every exception exits and a timer stops it.
    pub fn fresh(&mut self, mode: Mode, with_ept: bool) {
        if self.hidden.is_some() {
            // A case may have had this program's own VMX regions overwritten.
            for region in [self.vm.vmcs, self.vmx.region] {
                region.write(0, self.vmx.caps.revision());
            }
        }
        self.vm.reset(mode, with_ept);
        self.vm.bound();
        if with_ept {
            self.vm.ept().set_entry(TARGET, 1, 0);
            self.flush();
        }
    }

    /// A fresh 64-bit L2 with EPT that will execute `code`.
    pub fn prepare(&mut self, code: &Code) {
        self.fresh(Mode::Long, true);
        self.vm.load(code);
    }

    /// Drops what the CPU has cached of L2's EPT.
    pub fn flush(&self) {
        // Whatever EPT pointer is in use, or none that is good: all of them.
        insn::invept(2, [0, 0]).expect("INVEPT of all contexts");
    }

    /// Secondary controls on; `false` where the CPU lacks them.
    pub fn has(&self, controls: Proc2) -> bool {
        self.vm.proc2(controls, Proc2::empty())
    }

    /// Checks that an outcome, whichever it is, is one that the SDM knows.
    pub fn survive(&self, what: Arguments<'_>, outcome: &Outcome) {
        report::check(format_args!("{what}: {outcome}"), is_known(outcome));
    }

    /// Runs L2, which has to end in one of `reasons`.
    pub fn expect(&mut self, what: Arguments<'_>, reasons: &[u16]) -> Outcome {
        let outcome = self.vm.run();
        let is_right = matches!(outcome, Outcome::Exit(exit) if reasons.contains(&exit.basic()));
        report::check(format_args!("{what}: {outcome}"), is_right);
        outcome
    }

    /// Runs L2, whose outcome is open.
    pub fn run(&mut self, what: Arguments<'_>) -> Outcome {
        let outcome = self.vm.run();
        self.survive(what, &outcome);
        outcome
    }

    /// Proves that a plain L2 enters, writes its memory, exits and goes on, and that L1's own CPUID
    /// and MSRs answer.
    pub fn sane(&mut self, when: Arguments<'_>) {
        self.prepare(&sane_code());
        let first = self.vm.run();
        let mut is_right = is_exit(&first, reason::CPUID);
        if let Outcome::Exit(exit) = first {
            self.vm.skip(&exit);
            let second = self.vm.run();
            is_right &= is_exit(&second, reason::VMCALL);
        }
        is_right &= self.vm.memory.read::<u32>(layout::DATA) == 0x5afe;
        is_right &= cpu::cpuid(1, 0).ecx & 1 << 5 != 0;
        is_right &= cpu::rdmsr(0x480) == self.vmx.caps.basic;
        is_right &= insn::vmptrst() == Ok(self.vm.vmcs.address());
        report::check(format_args!("a plain L2 {when}: {first}"), is_right);
    }
}

/// Whether an outcome is an exit, not a failed entry, for this reason.
pub fn is_exit(outcome: &Outcome, reason: u16) -> bool {
    matches!(outcome, Outcome::Exit(exit) if exit.basic() == reason && !exit.is_entry_failure())
}

/// Whether a CPU may answer so: a known exit reason, or VMfailValid with a known number.
pub fn is_known(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Exit(exit) => exit.known().is_some(),
        Outcome::Failed(VmxError::Valid(number)) => (1..=28).contains(number),
        Outcome::Failed(_) | Outcome::HostFault(_) => false,
    }
}

/// Writes a field that this CPU may lack.
pub fn try_write(field: Field, value: u64) -> bool {
    vmwrite_raw(u64::from(field.encoding()), value).is_ok()
}

/// An entry of L2's EPT that leads to a table.
pub const fn table(address: u64) -> u64 {
    address | ept::ALL
}

/// An entry of L2's EPT that maps a page.
pub const fn leaf(address: u64) -> u64 {
    address | ept::ALL | ept::WRITE_BACK
}
