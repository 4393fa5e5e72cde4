//! What came of a case: every exit with all that can be seen, as one number or in full.

use core::fmt::{self, Write as _};

use rt::vmx::insn::{read, vmread_raw};
use rt::vmx::vm::{Outcome, layout};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field::{self, ALL, Area, FIELD_COUNT, Field};

use crate::world::{APIC_ACCESS, RIGHTS, TYPE, World};

/// Collects text into a hash (FNV-1a, 64 bits), and prints it if asked.
pub struct Watch {
    hash: u64,
    shows: bool,
    /// The fields as they were seen last.
    seen: [u64; FIELD_COUNT],
    /// VM entries that reached L2, or failed.
    pub exits: u32,
}

impl fmt::Write for Watch {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.add(byte);
        }
        if self.shows {
            rt::print!("{text}");
        }
        Ok(())
    }
}

impl Watch {
    /// A watch that prints what it sees if `shows`.
    pub fn new(shows: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            shows,
            seen: [0; FIELD_COUNT],
            exits: 0,
        }
    }

    /// The hash of all so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    fn add(&mut self, byte: u8) {
        self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }

    /// Takes in an outcome. An L2 that the timer stopped stands at no certain place.
    pub fn outcome(&mut self, world: &World, outcome: &Outcome) {
        self.exits += 1;
        if is_timeout(outcome) {
            let activity = read(field::GUEST_ACTIVITY_STATE);
            let _ = writeln!(self, "  timer, activity {activity}");
            return;
        }
        let _ = write!(self, "  {outcome}");
        if matches!(outcome, Outcome::Failed(_) | Outcome::HostFault(_)) {
            let _ = writeln!(self);
            return;
        }
        let r = &world.vm.registers;
        let _ = write!(
            self,
            " [{:x} {:x} {:x} {:x} {:x} {:x} {:x} {:x} {:x} {:x}]",
            r.rax, r.rcx, r.rdx, r.rbx, r.rsi, r.rdi, r.rbp, r.r8, r.r9, r.r10
        );
        for field in ALL {
            if is_watched(field)
                && let Ok(value) = vmread_raw(u64::from(field.encoding()))
                && value != self.seen[field.index()]
            {
                self.seen[field.index()] = value;
                let _ = write!(self, " {:x}={value:x}", field.encoding());
            }
        }
        let _ = writeln!(self);
    }

    /// Takes in L2's memory, and what the CPU writes for L1.
    pub fn memory(&mut self, world: &World) {
        let (waits, is_in_service) = world.interrupt_state();
        let _ = writeln!(
            self,
            "  interrupt waits {waits}, in service {is_in_service}"
        );
        let vm = &world.vm;
        let tss = layout::TSS..layout::TSS + 0x1000;
        for page in (0x1000..0x1_0000).chain(tss).step_by(4096) {
            self.page(page, |at| vm.memory.read(page + at));
        }
        self.page(0xa1, |at| world.virtual_apic.read(at));
        self.page(0xa2, |at| world.log.read(at));
        self.page(0xa3, |at| world.ve_information.read(at));
        if vm.uses_ept() {
            let ept = vm.ept();
            for page in (0..0x2_0000).step_by(4096) {
                let entry = ept.entry(page, 1) & 0xfff;
                if page != APIC_ACCESS && page != RIGHTS && page != TYPE {
                    self.add(entry as u8);
                    self.add((entry >> 8) as u8);
                }
                if self.shows && entry != 0x37 {
                    let _ = writeln!(self, "  ept {page:x}: {entry:x}");
                }
            }
        }
    }

    fn page(&mut self, name: u64, read: impl Fn(u64) -> u64) {
        let mut sum = 0u64;
        for at in (0..4096).step_by(8) {
            let value = read(at);
            sum = sum.rotate_left(7) ^ value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            if self.shows && value != 0 && (0xa000..0x1_0000).contains(&name) {
                rt::more!("{:x}: {value:x}", name + at);
            }
        }
        let _ = writeln!(self, "  memory {name:x}: {sum:x}");
    }
}

/// Whether the timer that bounds L2 ran out.
pub fn is_timeout(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Exit(exit)
        if !exit.is_entry_failure() && exit.known() == Some(Reason::PreemptionTimer))
}

/// Guest state, and the control fields that a VM entry or exit writes.
fn is_watched(field: Field) -> bool {
    if field == field::VMX_PREEMPTION_TIMER_VALUE || field == field::GUEST_RIP {
        return false;
    }
    field.area() == Area::Guest
        || field == field::VM_ENTRY_CONTROLS
        || field == field::VM_ENTRY_INTERRUPTION_INFORMATION
        || field == field::EPTP_INDEX
}
