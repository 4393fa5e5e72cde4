//! The machine with Umbra: L0 in VMX root operation, one instruction of its
//! entry, exit and handler paths a tick.

use crate::hw::{
    Controls, Cpu, Event, Filled, Guest, Inject, Level, Log, Op, Place, Quirks, Reason, Shadow,
};
use crate::scenario::{Machine, Scenario, Status, Vmcs12};
use umbra_arch::state::Blocking;
use umbra_nmi::{
    Action, Arm, Entry, EntryWindow, ExitKind, Inbox, Injects, Interruptibility, NmiMachine,
    Policy, blocking,
};

/// Mistakes to put into L0, to show that the search finds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    None,
    /// The handler returns to where it came from, always.
    NoRedirect,
    /// The last VM-entry instruction is left out of the window.
    WindowTooShort,
    /// An injected NMI goes without the blocking bit.
    NoBlockingWithInjection,
    /// Blocking after an exit of L2 is not carried over to L1.
    NoBlockingCarried,
    /// What IRET unblocked is not blocked again before a retry.
    NoBlockingBeforeRetry,
    /// Injects at once, whatever is in the way.
    InjectAlways,
    /// Forgets what waits instead of arming the window.
    ForgetInsteadOfHold,
    /// Enters L2 with NMI exiting 1 by delivering to L2.
    NeverReflect,
    /// Leaves the armed controls set.
    NeverDisarm,
    /// An NMI whose delivery was cut short is injected again unblocked,
    /// whatever the policy.
    ReinjectionUnblocks,
    /// It is injected again with the bit as saved, whatever the policy.
    ReinjectionKeepsBlocking,
    /// The handler returns with IRET: no NMI is lost that the bare CPU would
    /// keep, but a second one merges in L0.
    HandlerIret,
    /// L0 executes an IRET while it handles an exit, although L1 or L2 had NMIs
    /// blocked: harmless as well, because the machine then waits for the window.
    IretInL0,
}

impl Mistake {
    /// Those that must show.
    pub const ALL: [Mistake; 11] = [
        Mistake::NoRedirect,
        Mistake::WindowTooShort,
        Mistake::NoBlockingWithInjection,
        Mistake::NoBlockingCarried,
        Mistake::NoBlockingBeforeRetry,
        Mistake::InjectAlways,
        Mistake::ForgetInsteadOfHold,
        Mistake::NeverReflect,
        Mistake::NeverDisarm,
        Mistake::ReinjectionUnblocks,
        Mistake::ReinjectionKeepsBlocking,
    ];
    /// Those that the machine makes good.
    pub const TOLERATED: [Mistake; 2] = [Mistake::HandlerIret, Mistake::IretInL0];
}

/// L0's path, in the order in which it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    /// The first instruction after the exit: nothing saved, L1's registers.
    Landed,
    Saved,
    Handle,
    /// The retry label: is there anything to decide?
    Check,
    Decide,
    Apply,
    /// The stub looks at the inbox: compares...
    Look,
    /// ... and branches on what the comparison saw.
    Branch,
    LoadRegisters,
    EntryInstruction,
    /// VMX non-root operation.
    NonRoot,
}

const WINDOW: EntryWindow = EntryWindow {
    start: At::Look as u64,
    last_entry: At::EntryInstruction as u64,
    retry: At::Check as u64,
};

impl At {
    fn of_address(address: u64) -> Self {
        if address == At::Check as u64 {
            At::Check
        } else {
            panic!("the handler resumes only where it came from or at the retry label")
        }
    }
}

/// L0's NMI handler.
#[derive(Clone, Copy, Debug)]
enum Handler {
    Entered,
    Recorded,
    Returns,
}

#[derive(Clone, Debug, Default)]
struct Vmcs {
    controls: Controls,
    blocking: bool,
    inject: Option<Inject>,
}

pub struct Full<'s> {
    scenario: &'s Scenario,
    mistake: Mistake,
    cpu: Cpu,
    l1: Guest,
    l2: Guest,
    vmcs12: Vmcs12,
    vmcs01: Vmcs,
    vmcs02: Vmcs,
    level: Level,
    entries: usize,
    filled: Filled,
    at: At,
    handler: Option<Handler>,
    exit: Option<Reason>,
    looked: bool,
    action: Action,
    inbox: Inbox,
    nmi: NmiMachine,
    /// NMIs that met another one in L0.
    pub merged: usize,
    log: Vec<Log>,
}

impl Clone for Full<'_> {
    fn clone(&self) -> Self {
        let inbox = Inbox::new();
        if self.inbox.is_full() {
            inbox.put();
        }
        Full {
            scenario: self.scenario,
            mistake: self.mistake,
            cpu: self.cpu.clone(),
            l1: self.l1.clone(),
            l2: self.l2.clone(),
            vmcs12: self.vmcs12,
            vmcs01: self.vmcs01.clone(),
            vmcs02: self.vmcs02.clone(),
            level: self.level,
            entries: self.entries,
            filled: self.filled.clone(),
            at: self.at,
            handler: self.handler,
            exit: self.exit,
            looked: self.looked,
            action: self.action,
            inbox,
            nmi: self.nmi.clone(),
            merged: self.merged,
            log: self.log.clone(),
        }
    }
}

fn pin(controls: Controls) -> u32 {
    u32::from(controls.nmi_exiting) << 3 | u32::from(controls.virtual_nmis) << 5
}

fn proc(controls: Controls) -> u32 {
    u32::from(controls.nmi_window) << 22 | u32::from(controls.mtf) << 27
}

fn set(controls: &mut Controls, arm: Arm, on: bool) {
    let (pin, proc) = (arm.pin_bits(), arm.proc_bits());
    for (bit, field) in [
        (pin >> 3, &mut controls.nmi_exiting),
        (pin >> 5, &mut controls.virtual_nmis),
        (proc >> 22, &mut controls.nmi_window),
        (proc >> 27, &mut controls.mtf),
    ] {
        if bit & 1 == 1 {
            *field = on;
        }
    }
}

fn field(blocking: bool, shadow: Option<Shadow>) -> Interruptibility {
    let shadow = match shadow {
        None => 0,
        Some(Shadow::MovSs) => Blocking::MOV_SS.bits(),
        Some(Shadow::Sti) => Blocking::STI.bits(),
    };
    Interruptibility(shadow).with_nmi(blocking)
}

impl<'s> Full<'s> {
    pub fn new(scenario: &'s Scenario, quirks: Quirks, mistake: Mistake) -> Self {
        Full {
            scenario,
            mistake,
            cpu: Cpu::new(quirks),
            l1: Guest::new(Level::L1),
            l2: Guest::new(Level::L2),
            vmcs12: Vmcs12::default(),
            vmcs01: Vmcs::default(),
            vmcs02: Vmcs::default(),
            level: Level::L1,
            entries: 0,
            filled: Filled::default(),
            // The first entry into L1 comes from L0 too.
            at: At::Check,
            handler: None,
            exit: None,
            looked: false,
            action: Action::Enter,
            inbox: Inbox::new(),
            nmi: NmiMachine::new(),
            merged: 0,
            log: Vec::new(),
        }
    }

    fn guest(&mut self) -> (&mut Guest, &mut Vmcs) {
        match self.level {
            Level::L1 => (&mut self.l1, &mut self.vmcs01),
            Level::L2 => (&mut self.l2, &mut self.vmcs02),
        }
    }

    fn policy(&self) -> Policy {
        match self.level {
            Level::L1 => Policy::Direct,
            Level::L2 => Policy::of_pin_controls(pin(self.vmcs12.controls)),
        }
    }

    fn entry(&self) -> Entry {
        let (guest, vmcs) = match self.level {
            Level::L1 => (&self.l1, &self.vmcs01),
            Level::L2 => (&self.l2, &self.vmcs02),
        };
        let interruptibility = field(vmcs.blocking, guest.shadow).0;
        let info = match vmcs.inject.unwrap_or(Inject::Nothing) {
            Inject::Nothing => 0,
            Inject::Event => 0x8000_030d,
            Inject::Nmi => umbra_nmi::NMI_ENTRY_INFO,
            Inject::PendingMtf => 0x8000_0700,
        };
        let activity = u32::from(guest.halted);
        let debug = u64::from(guest.debug_pending) << 14;
        match self.level {
            Level::L1 => Entry::l1(interruptibility, info, activity, debug),
            Level::L2 => Entry::l2(
                pin(self.vmcs12.controls),
                proc(self.vmcs12.controls),
                interruptibility,
                info,
                activity,
                debug,
                false,
            ),
        }
    }

    fn landed(&mut self, reason: Reason, saved: bool) {
        let (_, vmcs) = self.guest();
        vmcs.blocking = saved;
        vmcs.inject = None;
        self.exit = Some(reason);
        self.at = At::Landed;
    }

    fn exit_to_l1(&mut self, reason: Reason) {
        let saved = field(self.vmcs02.blocking, self.l2.shadow);
        self.vmcs12.blocking = saved.nmi();
        self.vmcs12.inject = Inject::Nothing;
        let policy = self.policy();
        let by_nmi = reason == Reason::Nmi;
        self.log
            .push(Log::Exit(reason, saved.nmi(), self.l2.shadow));
        self.level = Level::L1;
        if self.mistake != Mistake::NoBlockingCarried {
            self.vmcs01.blocking = blocking::l1_after_exit(policy, saved, by_nmi).nmi();
        }
    }

    fn handle(&mut self) -> Result<(), String> {
        let reason = self.exit.take().ok_or("no exit")?;
        if self.mistake == Mistake::IretInL0 {
            self.cpu.blocked = false;
        }
        let kind = match reason {
            Reason::Nmi => ExitKind::of(0, umbra_nmi::NMI_EXIT_INFO),
            Reason::NmiWindow => ExitKind::of(8, 0),
            Reason::Mtf => ExitKind::of(37, 0),
            Reason::Instruction(_) | Reason::EptViolation { .. } => ExitKind::of(48, 0),
        };
        if self.nmi.is_armed() || kind == ExitKind::Nmi {
            let after = self.nmi.after_exit(kind);
            if let (Some(arm), true) = (after.disarm, self.mistake != Mistake::NeverDisarm) {
                let (_, vmcs) = self.guest();
                set(&mut vmcs.controls, arm, false);
            }
            if after.l0_owns {
                return Ok(());
            }
        }
        if let Reason::EptViolation { bit12, vectoring } = reason {
            self.mend(bit12, vectoring);
            return Ok(());
        }
        if self.level == Level::L2 {
            self.exit_to_l1(reason);
            return Ok(());
        }
        let Reason::Instruction(op) = reason else {
            return Err(format!("L1 exits by {reason:?}"));
        };
        self.l1.retire(&mut self.log);
        match op {
            Op::Cpuid => {}
            Op::CpuidTf => self.l1.debug_pending = true,
            Op::Fault => self.vmcs01.inject = Some(Inject::Event),
            Op::Vmresume => {
                self.scenario.prepare(self.entries, &mut self.vmcs12);
                self.entries += 1;
                self.level = Level::L2;
                self.vmcs02 = Vmcs {
                    controls: self.vmcs12.controls,
                    blocking: self.vmcs12.blocking,
                    inject: Some(self.vmcs12.inject),
                };
            }
            other => return Err(format!("L1 exits by {other:?}")),
        }
        Ok(())
    }

    /// L0 fills its EPT and lets the same thing happen again.
    fn mend(&mut self, bit12: bool, vectoring: bool) {
        let policy = self.policy();
        let mistake = self.mistake;
        let idt_vectoring = if vectoring {
            umbra_nmi::NMI_ENTRY_INFO | 1 << 12
        } else {
            0
        };
        let level = self.level;
        let top = self.guest().0.top();
        if vectoring {
            self.filled.delivered[level as usize] = true;
        } else {
            self.filled.touched.push((level, top));
        }
        let (guest, vmcs) = self.guest();
        let now = field(vmcs.blocking, guest.shadow);
        if let Some((info, now)) = blocking::before_reinjection(policy, now, idt_vectoring) {
            assert_eq!(Injects::of_entry_info(info), Injects::Nmi);
            vmcs.inject = Some(Inject::Nmi);
            vmcs.blocking = match mistake {
                Mistake::ReinjectionUnblocks => false,
                Mistake::ReinjectionKeepsBlocking => vmcs.blocking,
                _ => now.nmi(),
            };
            guest.shadow = None;
        } else if mistake != Mistake::NoBlockingBeforeRetry {
            let word = u64::from(bit12) << 12;
            vmcs.blocking = blocking::before_retry(policy, now, word, idt_vectoring, false).nmi();
        }
    }

    fn decide(&mut self) {
        let entry = self.entry();
        self.action = self.nmi.before_entry(&self.inbox, &entry);
        match (self.mistake, self.action) {
            (Mistake::InjectAlways, Action::Step | Action::HoldForWindow | Action::Hold) => {
                self.nmi = NmiMachine::new();
                self.action = Action::Inject;
            }
            (Mistake::ForgetInsteadOfHold, Action::HoldForWindow) => {
                self.nmi = NmiMachine::new();
                self.action = Action::Enter;
            }
            (Mistake::NeverReflect, Action::ReflectNmiExit) => self.action = Action::Inject,
            _ => {}
        }
    }

    /// True if the level has changed and the next entry is another one.
    fn apply(&mut self) -> bool {
        let mistake = self.mistake;
        let action = self.action;
        let (guest, vmcs) = self.guest();
        match action {
            Action::Enter | Action::Hold => {}
            Action::Inject => {
                let now = field(vmcs.blocking, guest.shadow).for_injected_nmi();
                vmcs.inject = Some(Inject::Nmi);
                if mistake != Mistake::NoBlockingWithInjection {
                    vmcs.blocking = now.nmi();
                }
                if mistake != Mistake::InjectAlways {
                    guest.shadow = None;
                }
            }
            Action::Step | Action::HoldForWindow => {
                if let Some(arm) = action.arm() {
                    set(&mut vmcs.controls, arm, true);
                }
            }
            Action::ReflectNmiExit => {
                self.exit_to_l1(Reason::Nmi);
                return true;
            }
        }
        false
    }

    fn run_handler(&mut self, handler: Handler) {
        self.handler = match handler {
            Handler::Entered => {
                self.merged += usize::from(self.nmi.has_pending(&self.inbox));
                self.inbox.put();
                Some(Handler::Recorded)
            }
            Handler::Recorded => {
                let window = if self.mistake == Mistake::WindowTooShort {
                    EntryWindow {
                        last_entry: WINDOW.last_entry - 1,
                        ..WINDOW
                    }
                } else {
                    WINDOW
                };
                let back = window.resume_at(self.at as u64);
                if self.mistake != Mistake::NoRedirect && back != self.at as u64 {
                    self.at = At::of_address(back);
                }
                Some(Handler::Returns)
            }
            Handler::Returns => {
                if self.mistake == Mistake::HandlerIret {
                    self.cpu.blocked = false;
                }
                None
            }
        };
    }

    fn non_root(&mut self, entering: bool) -> Result<Status, String> {
        let scenario = self.scenario;
        let level = self.level;
        let (guest, vmcs, place) = match level {
            Level::L1 => (&mut self.l1, &mut self.vmcs01, Place::L1OverL0),
            Level::L2 => (&mut self.l2, &mut self.vmcs02, Place::L2OverL0),
        };
        let (cpu, log, filled) = (&mut self.cpu, &mut self.log, &self.filled);
        let programs = &scenario.programs;
        let event = if entering {
            let inject = vmcs.inject.unwrap_or(Inject::Nothing);
            let (controls, blocking) = (vmcs.controls, vmcs.blocking);
            cpu.enter(
                guest, controls, blocking, inject, place, programs, filled, log,
            )?
        } else {
            cpu.step(guest, vmcs.controls, place, programs, filled, log)
        };
        self.at = At::NonRoot;
        match event {
            Event::Went => Ok(Status::Runs),
            Event::Waits => Ok(Status::Waits),
            Event::Ended => Ok(Status::Ended),
            Event::Exit(reason, saved) => {
                self.landed(reason, saved);
                Ok(Status::Runs)
            }
        }
    }
}

impl Machine for Full<'_> {
    fn arrive(&mut self) {
        self.cpu.arrive();
    }

    fn log(&self) -> &[Log] {
        &self.log
    }

    fn holds_one(&self) -> bool {
        self.cpu.latch || self.nmi.has_pending(&self.inbox)
    }

    fn tick(&mut self) -> Result<Status, String> {
        if let Some(handler) = self.handler {
            self.run_handler(handler);
            return Ok(Status::Runs);
        }
        if self.at == At::NonRoot {
            return self.non_root(false);
        }
        // In VMX root operation NMIs are not an exit: L0's IDT takes them,
        // before the instruction that `at` names.
        if self.cpu.latch && !self.cpu.blocked {
            self.cpu.latch = false;
            self.cpu.blocked = true;
            self.handler = Some(Handler::Entered);
            return Ok(Status::Runs);
        }
        self.at = match self.at {
            At::Landed => At::Saved,
            At::Saved => At::Handle,
            At::Handle => {
                self.handle()?;
                At::Check
            }
            At::Check if self.nmi.has_pending(&self.inbox) => At::Decide,
            At::Check => At::Look,
            At::Decide => {
                self.decide();
                At::Apply
            }
            At::Apply => {
                if self.apply() {
                    At::Check
                } else {
                    At::Look
                }
            }
            At::Look => {
                self.looked = self.inbox.is_full();
                At::Branch
            }
            At::Branch if self.looked => At::Check,
            At::Branch => At::LoadRegisters,
            At::LoadRegisters => At::EntryInstruction,
            At::EntryInstruction => return self.non_root(true),
            At::NonRoot => return Err("handled above".into()),
        };
        Ok(Status::Runs)
    }
}
