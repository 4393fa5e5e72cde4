//! The NMI that arrived in L0, and what the next VM entry does with it.

use core::sync::atomic::{AtomicU8, Ordering};

use umbra_arch::state::Activity;
use umbra_arch::{EventInfo, EventType, PendingDebug};
use umbra_vmcs::controls::{Pin, Proc};

use crate::{Interruptibility, Policy};

/// Where L0's NMI handler leaves word. One byte, so that the handler needs one
/// `mov byte` and the entry stub one `cmp byte`; per CPU.
///
/// Only the CPU's own handler writes it, between two instructions of the same
/// CPU's L0, so relaxed ordering is enough.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Inbox(AtomicU8);

impl Inbox {
    /// An empty inbox.
    pub const fn new() -> Self {
        Self(AtomicU8::new(0))
    }

    /// An NMI has arrived in L0. A second one before the first is taken
    /// merges with it, as in the latch of a CPU.
    pub fn put(&self) {
        self.0.store(1, Ordering::Relaxed);
    }

    /// Whether an NMI waits here.
    pub fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    fn take(&self) -> bool {
        self.0.swap(0, Ordering::Relaxed) != 0
    }
}

/// What the entry about to be done injects, by its VM-entry interruption
/// information.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Injects {
    /// Nothing.
    Nothing,
    /// An interrupt or exception.
    Event,
    /// An NMI (L1 injects one into L2, or L0 repeats one whose delivery was
    /// cut short).
    Nmi,
    /// A pending MTF VM exit.
    PendingMtf,
}

impl Injects {
    /// By the VM-entry interruption-information field (SDM "VM-Entry Controls
    /// for Event Injection").
    pub const fn of_entry_info(info: u32) -> Self {
        let info = EventInfo::from_bits(info);
        match (info.valid(), info.kind()) {
            (false, _) => Injects::Nothing,
            (true, EventType::Nmi) => Injects::Nmi,
            (true, EventType::Other) => Injects::PendingMtf,
            (true, _) => Injects::Event,
        }
    }
}

/// The entry about to be done, as far as an NMI cares. All of it is the state
/// that L1 or L2 would have on a bare CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// What an NMI does in the level about to run.
    pub policy: Policy,
    /// Its interruptibility state.
    pub interruptibility: Interruptibility,
    /// What the entry injects already.
    pub injects: Injects,
    /// Activity state wait-for-SIPI, which holds NMIs back.
    pub waits_for_sipi: bool,
    /// A debug exception is pending: it comes before an NMI, and an entry
    /// that injects one would lose it.
    pub debug_pending: bool,
    /// vmcs12 has the monitor trap flag set; false when L1 runs.
    pub l1_monitor_trap: bool,
    /// vmcs12 has NMI-window exiting set; false when L1 runs.
    pub l1_nmi_window: bool,
    /// The CPU will exit to L1 before it would look at an NMI: vmcs12's
    /// preemption timer stands at 0, or the TPR is below its threshold.
    pub exits_first: bool,
}

/// Bus lock, enabled breakpoint, single step, RTM: what makes pending debug
/// exceptions valid. B0-B3 alone deliver nothing.
const DEBUG_VALID: PendingDebug = PendingDebug::BUS_LOCK
    .union(PendingDebug::ENABLED_BREAKPOINT)
    .union(PendingDebug::BS)
    .union(PendingDebug::RTM);

impl Entry {
    /// An entry into L1, by vmcs01's fields: interruptibility state, VM-entry
    /// interruption information, activity state, pending debug exceptions.
    pub const fn l1(interruptibility: u32, entry_info: u32, activity: u32, debug: u64) -> Self {
        Self {
            policy: Policy::Direct,
            interruptibility: Interruptibility(interruptibility),
            injects: Injects::of_entry_info(entry_info),
            waits_for_sipi: activity == Activity::WaitForSipi as u32,
            debug_pending: DEBUG_VALID.any_in(debug),
            l1_monitor_trap: false,
            l1_nmi_window: false,
            exits_first: false,
        }
    }

    /// An entry into L2, by vmcs12's pin-based and primary processor-based
    /// controls and by vmcs02's fields as for [`Entry::l1`]. `exits_first` as
    /// in the field of that name.
    pub const fn l2(
        vmcs12_pin: u32,
        vmcs12_proc: u32,
        interruptibility: u32,
        entry_info: u32,
        activity: u32,
        debug: u64,
        exits_first: bool,
    ) -> Self {
        Self {
            policy: Policy::of_pin_controls(vmcs12_pin),
            l1_monitor_trap: vmcs12_proc & Proc::MONITOR_TRAP_FLAG.bits() != 0,
            l1_nmi_window: vmcs12_proc & Proc::NMI_WINDOW_EXITING.bits() != 0,
            exits_first,
            ..Self::l1(interruptibility, entry_info, activity, debug)
        }
    }

    /// What to do with one NMI that waits. Total: every entry has an answer,
    /// and each answer passes the checks of VM entry.
    pub const fn action(&self) -> Action {
        // No NMI is recognised before what comes first, or in this state at
        // all; what comes is an exit, and the next entry decides.
        if self.waits_for_sipi || self.exits_first || matches!(self.injects, Injects::PendingMtf) {
            return Action::Hold;
        }
        if self.interruptibility.nmi() && self.policy.bit_blocks_nmis() {
            return match (self.policy, self.injects) {
                // The field that opens the window would make the injection of
                // an NMI fail; the window follows once that one is delivered.
                (Policy::Direct, Injects::Nmi) => self.step(),
                (Policy::Direct, _) => Action::HoldForWindow,
                // Only an exit to L1 can end the blocking.
                _ => Action::Hold,
            };
        }
        if !matches!(self.injects, Injects::Nothing)
            || self.interruptibility.shadow()
            || self.debug_pending
        {
            return self.step();
        }
        match self.policy {
            Policy::Direct => Action::Inject,
            // The window exit goes first; the NMI then finds L1 running.
            Policy::Virtual if self.l1_nmi_window && !self.interruptibility.nmi() => Action::Hold,
            Policy::Exit | Policy::Virtual => Action::ReflectNmiExit,
        }
    }

    /// One step on. If vmcs12 has the monitor trap flag, the exit after the
    /// step is L1's, and comes without our doing.
    const fn step(&self) -> Action {
        if self.l1_monitor_trap {
            Action::Hold
        } else {
            Action::Step
        }
    }
}

/// What L0 does at the entry for the NMI that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// No NMI waits: enter.
    Enter,
    /// Inject it: write [`NMI_ENTRY_INFO`](crate::NMI_ENTRY_INFO) and the
    /// interruptibility from [`Interruptibility::for_injected_nmi`] into the
    /// VMCS about to be entered. Done with.
    Inject,
    /// L2 → L1, as an NMI exit with [`NMI_EXIT_INFO`](crate::NMI_EXIT_INFO):
    /// switch to L1, with blocking as [`blocking::l1_after_exit`] says, then
    /// go on to the entry of L1. Done with.
    ///
    /// [`blocking::l1_after_exit`]: crate::blocking::l1_after_exit
    ReflectNmiExit,
    /// It cannot be taken before the next instruction boundary: enter with the
    /// bits of [`Arm::MonitorTrap`] set.
    Step,
    /// NMIs are blocked: enter with the bits of [`Arm::NmiWindow`] set, so
    /// that the IRET that unblocks exits.
    HoldForWindow,
    /// It waits for the next exit, which is L1's: enter as things are.
    Hold,
}

/// Controls that L0 sets for one entry on behalf of an NMI that waits. vmcs12
/// never has any of them set when L0 asks for them, so clearing the bits after
/// the exit restores its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arm {
    /// The monitor trap flag.
    MonitorTrap,
    /// NMI exiting, virtual NMIs and NMI-window exiting. The blocking bit
    /// keeps its meaning: with NMI exiting 0 and with virtual NMIs alike IRET
    /// clears it. That a further NMI now exits is right as well: on a bare CPU
    /// it would have met a full latch.
    NmiWindow,
}

impl Arm {
    /// Bits of the pin-based VM-execution controls.
    pub const fn pin_bits(self) -> u32 {
        match self {
            Arm::MonitorTrap => 0,
            Arm::NmiWindow => Pin::NMI_EXITING.union(Pin::VIRTUAL_NMIS).bits(),
        }
    }

    /// Bits of the primary processor-based VM-execution controls.
    pub const fn proc_bits(self) -> u32 {
        match self {
            Arm::MonitorTrap => Proc::MONITOR_TRAP_FLAG.bits(),
            Arm::NmiWindow => Proc::NMI_WINDOW_EXITING.bits(),
        }
    }
}

impl Action {
    /// What to arm in the VMCS about to be entered.
    pub const fn arm(self) -> Option<Arm> {
        match self {
            Action::Step => Some(Arm::MonitorTrap),
            Action::HoldForWindow => Some(Arm::NmiWindow),
            Action::Enter | Action::Inject | Action::ReflectNmiExit | Action::Hold => None,
        }
    }
}

/// A VM exit, as far as an NMI cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitKind {
    /// Exception or NMI (basic reason 0), and it is an NMI.
    Nmi,
    /// NMI window (8).
    NmiWindow,
    /// Monitor trap flag (37).
    MonitorTrap,
    /// Anything else.
    Other,
}

impl ExitKind {
    /// By the basic exit reason and the VM-exit interruption information
    /// (read only for reason 0; pass 0 otherwise).
    pub const fn of(basic_reason: u16, exit_info: u32) -> Self {
        match basic_reason {
            0 if exit_info >> 31 == 1 && (exit_info >> 8) & 7 == 2 => ExitKind::Nmi,
            8 => ExitKind::NmiWindow,
            37 => ExitKind::MonitorTrap,
            _ => ExitKind::Other,
        }
    }
}

/// What [`NmiMachine::after_exit`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterExit {
    /// Bits to clear in the VMCS that exited, before anything else uses it.
    pub disarm: Option<Arm>,
    /// The exit happened for L0's sake: nothing to show to L1 or to handle,
    /// go on to the entry.
    pub l0_owns: bool,
}

/// One CPU's NMI state in L0, beside its [`Inbox`].
///
/// `pending` stands in for the NMI latch that L1's CPU would have: one NMI
/// fits, and one more is lost as there. It is full across a VM entry only
/// while the bare CPU's latch would be.
#[derive(Clone, Debug, Default)]
pub struct NmiMachine {
    pending: bool,
    armed: Option<Arm>,
}

impl NmiMachine {
    /// Nothing pending, nothing armed.
    pub const fn new() -> Self {
        Self {
            pending: false,
            armed: None,
        }
    }

    /// Whether [`NmiMachine::before_entry`] has something to decide: two
    /// byte reads, all that an entry without an NMI costs.
    pub fn has_pending(&self, inbox: &Inbox) -> bool {
        self.pending || inbox.is_full()
    }

    /// Whether [`NmiMachine::after_exit`] must be called even though the exit
    /// is no NMI exit.
    pub const fn is_armed(&self) -> bool {
        self.armed.is_some()
    }

    /// Decides about the NMI that waits, if one does. Call it as late as
    /// possible, after everything else about the entry stands, and again from
    /// the stub's retry label. After [`Action::ReflectNmiExit`] the entry is
    /// another one (into L1): call it again if there [`Self::has_pending`].
    pub fn before_entry(&mut self, inbox: &Inbox, entry: &Entry) -> Action {
        self.pending |= inbox.take();
        if !self.pending {
            return Action::Enter;
        }
        let action = entry.action();
        self.pending = !matches!(action, Action::Inject | Action::ReflectNmiExit);
        self.armed = action.arm();
        action
    }

    /// Takes note of a VM exit: right after it, when [`Self::is_armed`] or
    /// when it is an NMI exit. What was armed holds for one entry.
    pub fn after_exit(&mut self, kind: ExitKind) -> AfterExit {
        let disarm = self.armed.take();
        let l0_owns = match (kind, disarm) {
            (ExitKind::MonitorTrap, Some(Arm::MonitorTrap))
            | (ExitKind::NmiWindow, Some(Arm::NmiWindow)) => true,
            // A further NMI while one waits for the window: lost, as on a
            // CPU whose latch is full.
            (ExitKind::Nmi, Some(Arm::NmiWindow)) => {
                self.pending = true;
                true
            }
            // The NMI exit that L1 asked for takes with it what waited.
            (ExitKind::Nmi, _) => {
                self.pending = false;
                false
            }
            _ => false,
        };
        AfterExit { disarm, l0_owns }
    }

    /// An INIT resets the CPU's L1: no NMI is pending afterwards. What is
    /// armed stays noted until [`Self::after_exit`].
    pub fn reset(&mut self, inbox: &Inbox) {
        inbox.take();
        self.pending = false;
    }
}
