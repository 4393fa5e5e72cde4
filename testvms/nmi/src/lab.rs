//! The bench: one experiment is one line, the ordered list of what came to whom.

use rt::vmx::insn::{self, read, write};
use rt::vmx::vm::{Mode, Outcome, Vm, layout};
use rt::vmx::{Exit, Vmx, ept};
use rt::{begin_case, print, println, report};
use umbra_vmcs::controls::{Pin, Proc};
use umbra_vmcs::exit::Reason;
use umbra_vmcs::field;

use crate::apic;
use crate::code::{self, Code};
use crate::l1;

/// A valid NMI in the interruption-information format.
pub const NMI_EVENT: u32 = 1 << 31 | 2 << 8 | 2;
/// Interruptibility state: blocking by STI.
pub const BY_STI: u64 = 1;
/// Interruptibility state: blocking by MOV SS.
pub const BY_MOV_SS: u64 = 2;
/// Interruptibility state: blocking by NMI.
pub const BY_NMI: u64 = 8;
/// RFLAGS.IF.
pub const IF: u64 = 1 << 9;
/// L2's stack page.
pub const STACK_PAGE: u64 = layout::STACK_TOP - 4096;
/// Where L2 finds the local APIC.
const APIC_PAGE: u64 = code::APIC;
/// Exits after which an experiment that does not end is given up.
const MOST_EXITS: u32 = 24;
/// Bits of an EPT violation's qualification that are the same on every CPU, less bit 12.
const QUALIFICATION: u64 = 0x1ff;
/// Qualification bit 12: NMI unblocking due to IRET.
pub const UNBLOCKED_BY_IRET: u64 = 1 << 12;

/// What vmcs12 says of NMIs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// NMI exiting 0.
    Direct,
    /// NMI exiting 1, virtual NMIs 0.
    Exiting,
    /// Both 1.
    Virtual,
}

/// Every policy.
pub const POLICIES: [Policy; 3] = [Policy::Direct, Policy::Exiting, Policy::Virtual];

impl Policy {
    /// The word in transcripts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Exiting => "exiting",
            Self::Virtual => "virtual",
        }
    }

    fn pin(self) -> Pin {
        match self {
            Self::Direct => Pin::empty(),
            Self::Exiting => Pin::NMI_EXITING,
            Self::Virtual => Pin::NMI_EXITING | Pin::VIRTUAL_NMIS,
        }
    }
}

/// The bench.
pub struct Lab {
    /// L2.
    pub vm: Vm,
    /// NMI exits of a flood, which are no experiments.
    pub flood_exits: u32,
    policy: Policy,
    /// NMI exits, and NMIs in L2's handler, of the running experiment.
    seen: u32,
    l1_before: u32,
}

impl Lab {
    /// A bench whose L2 is not set up yet.
    pub fn new(vmx: &Vmx) -> Self {
        Self {
            vm: Vm::new(vmx),
            policy: Policy::Direct,
            seen: 0,
            l1_before: 0,
            flood_exits: 0,
        }
    }

    /// Starts the line of an experiment.
    pub fn begin(&mut self, place: &str, name: &str) {
        self.seen = 0;
        begin_case!("{place}, {name}:");
        self.l1_before = l1::nmis();
    }

    /// Starts an experiment with L2, which stands before `code`.
    pub fn begin_l2(&mut self, policy: Policy, name: &str, code: Code) {
        self.set_up(policy, code);
        self.begin(policy.name(), name);
    }

    /// L2 anew, before `code`.
    pub fn set_up(&mut self, policy: Policy, code: Code) {
        self.policy = policy;
        self.vm.reset(Mode::Long, true);
        self.vm.load(&code());
        for vector in 0..=255 {
            self.set_handler(vector, &code::HANDLER);
        }
        let rights = ept::READ | ept::WRITE;
        self.vm
            .ept()
            .set_entry(APIC_PAGE, 1, apic::ADDRESS | rights);
        self.vm.pin(policy.pin(), Pin::empty());
        self.touch_handlers();
    }

    /// Has L2 execute an instruction in the page of its handlers, so that a hypervisor below L1 that
    /// fills its tables on demand has that page. Where the first instruction of an NMI handler exits,
    /// Bochs saves a wrong RIP, and the NMI would be lost (`docs/errata.md`).
    fn touch_handlers(&mut self) {
        write(field::GUEST_RIP, layout::HANDLERS);
        let outcome = self.vm.run();
        let is_call =
            matches!(outcome, Outcome::Exit(exit) if exit.known() == Some(Reason::Vmcall));
        assert!(is_call, "L2's handlers: {outcome}");
        self.vm.jump(0);
        // The first entry of an experiment is a VMLAUNCH.
        self.vm.clear();
    }

    /// Gives L2 another handler for a vector.
    pub fn set_handler(&self, vector: u8, code: &[u8]) {
        let at = layout::HANDLERS + 16 * u64::from(vector);
        self.vm.memory.write_bytes(at, code);
    }

    /// Sets L2's interruptibility state.
    pub fn set_blocking(&self, state: u64) {
        write(field::GUEST_INTERRUPTIBILITY_STATE, state);
    }

    /// L2's interrupts are on.
    pub fn set_if(&self) {
        write(field::GUEST_RFLAGS, read(field::GUEST_RFLAGS) | IF);
    }

    /// The next entry injects an NMI.
    pub fn inject(&self) {
        write(field::VM_ENTRY_INTERRUPTION_INFORMATION, NMI_EVENT.into());
    }

    /// Turns NMI-window exiting on.
    pub fn ask_nmi_window(&self) {
        self.vm.proc(Proc::NMI_WINDOW_EXITING, Proc::empty());
    }

    /// Turns interrupt-window exiting on.
    pub fn ask_interrupt_window(&self) {
        self.vm.proc(Proc::INTERRUPT_WINDOW_EXITING, Proc::empty());
    }

    /// Starts the preemption timer at the next entry.
    pub fn ask_timer(&self, value: u64) {
        self.vm.pin(Pin::ACTIVATE_PREEMPTION_TIMER, Pin::empty());
        write(field::VMX_PREEMPTION_TIMER_VALUE, value);
    }

    /// Takes a page of L2 away from ept12.
    pub fn take_page(&self, gpa: u64) {
        self.vm.ept().set_entry(gpa, 1, 0);
        insn::invept(1, [self.vm.ept().pointer(), 0]).expect("INVEPT of a good pointer");
    }

    /// L1 blocks NMIs and sends itself one, which waits.
    pub fn latch(&mut self) {
        l1::block();
        apic::send_nmi();
    }

    /// Notes a place in L1's code.
    pub fn mark(&self, name: &str) {
        l1::flush();
        print!(" {name}");
    }

    /// Enters L2 until its code ends.
    pub fn go(&mut self) {
        for _ in 0..MOST_EXITS {
            if self.step() {
                return;
            }
        }
        print!(" and so on");
    }

    /// Enters L2 once, shows the exit and does what a hypervisor does about it. Whether L2's code
    /// has ended.
    pub fn step(&mut self) -> bool {
        let outcome = self.vm.run();
        l1::flush();
        match outcome {
            Outcome::Exit(exit) if exit.is_entry_failure() => {
                print!(" entry-failure {} q={}", exit.basic(), exit.qualification);
                true
            }
            Outcome::Exit(exit) => self.exit(&exit),
            other => {
                print!(" {other}");
                true
            }
        }
    }

    fn exit(&mut self, exit: &Exit) -> bool {
        let state = read(field::GUEST_INTERRUPTIBILITY_STATE);
        match exit.known() {
            Some(Reason::Vmcall) => {
                let vector = (exit.rip.wrapping_sub(layout::HANDLERS)) / 16;
                match vector {
                    2 if exit.rip & 15 == self.first_call() => {
                        self.seen += 1;
                        print!(" L2:nmi(s{state})");
                    }
                    2 => print!(" L2:nmi+{}(s{state})", exit.rip & 15),
                    81 => {
                        print!(" L2:irq(s{state})");
                        apic::end_of_interrupt();
                    }
                    0..256 => print!(" L2:vector{vector}(s{state})"),
                    _ => print!(" L2@{}(s{state})", exit.rip - layout::CODE),
                }
                self.vm.skip(exit);
                return false;
            }
            Some(Reason::Cpuid) => {
                print!(" end(s{state})");
                return true;
            }
            Some(Reason::ExceptionOrNmi) => {
                let is_nmi = exit.interruption & !(1 << 12) == NMI_EVENT;
                self.seen += u32::from(is_nmi);
                print!(" exit:nmi({:x} s{state}", exit.interruption);
            }
            Some(Reason::ExternalInterrupt) => {
                print!(" exit:irq(");
                if exit.interruption >> 31 != 0 {
                    print!("{:x} ", exit.interruption);
                }
                print!("s{state}");
            }
            Some(Reason::NmiWindow) => {
                print!(" exit:nmi-window(s{state}");
                self.vm.proc(Proc::empty(), Proc::NMI_WINDOW_EXITING);
            }
            Some(Reason::InterruptWindow) => {
                print!(" exit:irq-window(s{state}");
                self.vm.proc(Proc::empty(), Proc::INTERRUPT_WINDOW_EXITING);
            }
            Some(Reason::EptViolation) => {
                print!(" exit:ept(q{:x} s{state}", self.qualification(exit));
                self.mend(exit);
            }
            Some(Reason::PreemptionTimer) => {
                print!(" exit:timer(s{state}");
                self.vm.pin(Pin::empty(), Pin::ACTIVATE_PREEMPTION_TIMER);
            }
            Some(Reason::MonitorTrapFlag) => {
                print!(" exit:mtf(s{state}");
                self.vm.proc(Proc::empty(), Proc::MONITOR_TRAP_FLAG);
            }
            _ => {
                print!(" exit:{}(s{state}) @{:x}", exit.name(), exit.rip);
                return true;
            }
        }
        // What ends HLT or shutdown ends it for good.
        write(field::GUEST_ACTIVITY_STATE, 0);
        if exit.vectoring >> 31 != 0 {
            print!(" v{:x}", exit.vectoring);
        }
        match exit.rip.checked_sub(layout::HANDLERS) {
            Some(offset) => print!(" @{}+{})", offset / 16, offset % 16),
            None => print!(" @{})", exit.rip.wrapping_sub(layout::CODE)),
        }
        if exit.known() == Some(Reason::ExternalInterrupt) {
            if exit.interruption >> 31 != 0 {
                apic::end_of_interrupt();
            } else {
                l1::open_interrupts();
            }
        }
        false
    }

    /// The offset of the first VMCALL in the NMI handler.
    fn first_call(&self) -> u64 {
        let at = |offset| self.vm.memory.read::<u8>(layout::HANDLERS + 32 + offset);
        (0..14)
            .find(|i| [at(*i), at(i + 1), at(i + 2)] == code::VMCALL)
            .unwrap_or(0)
    }

    /// The bits of the qualification that are defined.
    fn qualification(&self, exit: &Exit) -> u64 {
        let has_bit_12 = self.policy != Policy::Exiting && exit.vectoring >> 31 == 0;
        let mask = if has_bit_12 { UNBLOCKED_BY_IRET } else { 0 };
        exit.qualification & (QUALIFICATION | mask)
    }

    /// Maps the page and has L2 do again what it could not.
    fn mend(&mut self, exit: &Exit) {
        let page = exit.guest_physical & !0xfff;
        self.vm
            .ept()
            .map(page, self.vm.memory.address() + page, ept::ALL);
        let state = read(field::GUEST_INTERRUPTIBILITY_STATE);
        if exit.vectoring >> 31 != 0 {
            write(
                field::VM_ENTRY_INTERRUPTION_INFORMATION,
                exit.vectoring.into(),
            );
            if exit.vectoring == NMI_EVENT {
                self.set_blocking(state & !BY_NMI);
            }
        } else if self.qualification(exit) & UNBLOCKED_BY_IRET != 0 {
            self.set_blocking(state | BY_NMI);
        }
    }

    /// Ends an experiment with L2: enters it until its code ends, then as [`Lab::settle`].
    pub fn finish(&mut self, nmis: u32) {
        self.go();
        self.settle(nmis);
    }

    /// Ends the line: whatever waits comes now. `nmis` is how many there were to be seen, by L1's
    /// handler, as exits, and by L2's handler.
    pub fn settle(&mut self, nmis: u32) {
        l1::flush();
        print!(" |");
        rt::trap::unblock_nmis();
        l1::flush();
        if apic::is_requested() {
            print!(" sti");
            l1::open_interrupts();
            l1::flush();
        }
        apic::end_of_interrupt();
        let seen = self.seen + l1::nmis() - self.l1_before;
        println!(" {seen}");
        report::equal(format_args!("NMIs seen"), seen, nmis);
    }

    /// Ends an experiment in which L2's handler counts instead of showing itself.
    pub fn finish_counting(&mut self, nmis: u32) {
        self.go();
        let counted = self.vm.memory.read::<u32>(code::COUNTER);
        print!(" L2 counted {counted}");
        self.seen += counted;
        self.settle(nmis);
    }

    /// An experiment in which Bochs departs from the SDM: `docs/errata.md` has it.
    pub fn leave_out(&self, policy: Policy, name: &str, sdm: &str) {
        report::erratum(format_args!("{}, {name}: by the SDM {sdm}", policy.name()));
    }
}
