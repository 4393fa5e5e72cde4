//! The CPU's own NMI rules: one latch, one blocking flag, VM entry and exit.
//!
//! Written from the SDM alone and without the crate under test. The bare
//! machine and the machine with Umbra are both built on it; what differs is
//! who sits in VMX root operation.

/// Where CPUs differ, or may.
#[derive(Clone, Copy, Debug)]
pub struct Quirks {
    /// Injecting an NMI with virtual NMIs 0 sets blocking by NMI even if the
    /// interruptibility field does not.
    pub injection_blocks: bool,
    /// STI holds back an NMI for one instruction.
    pub sti_holds_nmi: bool,
    /// Injecting an NMI with blocking by STI fails the entry.
    pub sti_refuses_injection: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    L1,
    L2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    Main,
    Nmi,
    Exception,
    Debug,
}

/// The instructions of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Nop,
    MovSs,
    Sti,
    Hlt,
    /// Ends a handler; in `Main`, an IRET to the next instruction.
    Iret,
    /// Exits from L1 to L0, from L2 to L1.
    Cpuid,
    /// The same with RFLAGS.TF: a debug exception is pending afterwards. L1 only.
    CpuidTf,
    /// Raises an exception; in L1 it is L0 that finds the fault and injects it.
    Fault,
    /// As the plain ones, but the first execution meets an EPT violation that
    /// L0 mends. On the bare CPU there is none.
    TouchFault,
    HltFault,
    IretFault,
    /// L1 enters L2.
    Vmresume,
    /// L1 is done.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Log {
    Ran(Level, Code, usize),
    Nmi(Level),
    Exception(Level),
    Debug(Level),
    /// An exit that L1 sees: reason, and blocking by NMI and shadow as saved.
    Exit(Reason, bool, Option<Shadow>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Nmi,
    NmiWindow,
    Mtf,
    Instruction(Op),
    /// Bit 12 of the qualification, and whether an NMI was being delivered.
    EptViolation {
        bit12: bool,
        vectoring: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shadow {
    MovSs,
    Sti,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Controls {
    pub nmi_exiting: bool,
    pub virtual_nmis: bool,
    pub nmi_window: bool,
    pub mtf: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Inject {
    Nothing,
    Event,
    Nmi,
    PendingMtf,
}

/// The programs that run, and which instructions and deliveries L0 has to mend.
#[derive(Clone, Debug)]
pub struct Programs {
    pub main: [Vec<Op>; 2],
    pub nmi: [Vec<Op>; 2],
    /// Delivering the first NMI in that level meets an EPT violation.
    pub delivery_faults: [bool; 2],
}

const SHORT_HANDLER: [Op; 2] = [Op::Nop, Op::Iret];

impl Programs {
    fn op(&self, level: Level, frame: Frame) -> Op {
        let code: &[Op] = match frame.code {
            Code::Main => &self.main[level as usize],
            Code::Nmi => &self.nmi[level as usize],
            Code::Exception | Code::Debug => &SHORT_HANDLER,
        };
        code[frame.pc]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    pub code: Code,
    pub pc: usize,
}

/// What a level has that no NMI rule of the CPU owns: its stack, its shadow,
/// its activity. On an exit this is what the guest-state area holds.
#[derive(Clone, Debug)]
pub struct Guest {
    pub level: Level,
    pub frames: Vec<Frame>,
    pub shadow: Option<Shadow>,
    pub debug_pending: bool,
    pub halted: bool,
}

impl Guest {
    pub fn new(level: Level) -> Self {
        Guest {
            level,
            frames: vec![Frame {
                code: Code::Main,
                pc: 0,
            }],
            shadow: None,
            debug_pending: false,
            halted: false,
        }
    }

    pub fn top(&self) -> Frame {
        *self.frames.last().expect("Main never returns")
    }

    /// The instruction is done: next one, no shadow.
    pub fn retire(&mut self, log: &mut Vec<Log>) {
        let top = self.frames.last_mut().expect("Main never returns");
        log.push(Log::Ran(self.level, top.code, top.pc));
        top.pc += 1;
        self.shadow = None;
    }

    fn push(&mut self, code: Code) {
        self.frames.push(Frame { code, pc: 0 });
        self.shadow = None;
        self.halted = false;
    }
}

/// Which instructions leave this level, and whether EPT violations exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// L1 in VMX root operation: only entering L2 leaves.
    BareL1,
    BareL2,
    L1OverL0,
    L2OverL0,
}

impl Place {
    fn exits(self, op: Op) -> bool {
        match self {
            Place::BareL1 => op == Op::Vmresume,
            Place::BareL2 | Place::L2OverL0 => op == Op::Cpuid,
            Place::L1OverL0 => {
                matches!(op, Op::Cpuid | Op::CpuidTf | Op::Fault | Op::Vmresume)
            }
        }
    }

    fn has_violations(self) -> bool {
        matches!(self, Place::L1OverL0 | Place::L2OverL0)
    }
}

/// What ept01 and ept02 have been filled with.
#[derive(Clone, Debug, Default)]
pub struct Filled {
    pub touched: Vec<(Level, Frame)>,
    pub delivered: [bool; 2],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Went,
    /// Halted, and nothing wakes it.
    Waits,
    /// L1 has come to its end.
    Ended,
    /// An exit, with blocking by NMI as saved.
    Exit(Reason, bool),
}

#[derive(Clone, Debug)]
pub struct Cpu {
    pub latch: bool,
    pub blocked: bool,
    pub virtually_blocked: bool,
    mtf_pending: bool,
    pub quirks: Quirks,
}

impl Cpu {
    pub fn new(quirks: Quirks) -> Self {
        Cpu {
            latch: false,
            blocked: false,
            virtually_blocked: false,
            mtf_pending: false,
            quirks,
        }
    }

    fn saved(&self, controls: Controls) -> bool {
        if controls.virtual_nmis {
            self.virtually_blocked
        } else {
            self.blocked
        }
    }

    fn exit(&mut self, controls: Controls, reason: Reason) -> Event {
        let saved = self.saved(controls);
        if reason == Reason::Nmi {
            self.blocked = true;
        }
        Event::Exit(reason, saved)
    }

    /// Delivers an NMI through the IDT; blocking is already as it shall be.
    fn deliver(
        &mut self,
        guest: &mut Guest,
        controls: Controls,
        place: Place,
        programs: &Programs,
        filled: &Filled,
        log: &mut Vec<Log>,
    ) -> Event {
        let level = guest.level as usize;
        if place.has_violations() && programs.delivery_faults[level] && !filled.delivered[level] {
            guest.shadow = None;
            guest.halted = false;
            let bit12 = true; // undefined: the worst that it can be
            return self.exit(
                controls,
                Reason::EptViolation {
                    bit12,
                    vectoring: true,
                },
            );
        }
        log.push(Log::Nmi(guest.level));
        guest.push(Code::Nmi);
        self.mtf_pending |= controls.mtf;
        Event::Went
    }

    /// VM entry. `Err` names the check that it fails.
    #[allow(clippy::too_many_arguments)]
    pub fn enter(
        &mut self,
        guest: &mut Guest,
        controls: Controls,
        blocking: bool,
        inject: Inject,
        place: Place,
        programs: &Programs,
        filled: &Filled,
        log: &mut Vec<Log>,
    ) -> Result<Event, &'static str> {
        if controls.virtual_nmis && !controls.nmi_exiting {
            return Err("virtual NMIs without NMI exiting");
        }
        if controls.nmi_window && !controls.virtual_nmis {
            return Err("NMI-window exiting without virtual NMIs");
        }
        if inject == Inject::Nmi {
            if guest.shadow == Some(Shadow::MovSs) {
                return Err("NMI injected with blocking by MOV SS");
            }
            if guest.shadow == Some(Shadow::Sti) && self.quirks.sti_refuses_injection {
                return Err("NMI injected with blocking by STI");
            }
            if controls.virtual_nmis && blocking {
                return Err("NMI injected with virtual-NMI blocking");
            }
        }
        if guest.halted && guest.shadow.is_some() {
            return Err("HLT with a shadow");
        }
        self.mtf_pending = false;
        if controls.virtual_nmis {
            self.blocked = false;
            self.virtually_blocked = blocking;
        } else {
            self.blocked = blocking;
            self.virtually_blocked = false;
        }
        match inject {
            Inject::Nothing => Ok(Event::Went),
            Inject::PendingMtf => {
                self.mtf_pending = true;
                Ok(Event::Went)
            }
            Inject::Event => {
                guest.debug_pending = false;
                log.push(Log::Exception(guest.level));
                guest.push(Code::Exception);
                self.mtf_pending = controls.mtf;
                Ok(Event::Went)
            }
            Inject::Nmi => {
                guest.debug_pending = false;
                guest.shadow = None;
                guest.halted = false;
                if controls.virtual_nmis {
                    self.virtually_blocked = true;
                } else if self.quirks.injection_blocks {
                    self.blocked = true;
                }
                Ok(self.deliver(guest, controls, place, programs, filled, log))
            }
        }
    }

    /// One instruction boundary and what follows it: an event, or an
    /// instruction. Order as in the SDM's "Priority Among Simultaneous
    /// Exceptions and Interrupts", "Monitor Trap Flag", "NMI-Window Exiting".
    pub fn step(
        &mut self,
        guest: &mut Guest,
        controls: Controls,
        place: Place,
        programs: &Programs,
        filled: &Filled,
        log: &mut Vec<Log>,
    ) -> Event {
        if self.mtf_pending {
            self.mtf_pending = false;
            return self.exit(controls, Reason::Mtf);
        }
        if guest.debug_pending && guest.shadow != Some(Shadow::MovSs) {
            guest.debug_pending = false;
            log.push(Log::Debug(guest.level));
            guest.push(Code::Debug);
            self.mtf_pending = controls.mtf;
            return Event::Went;
        }
        let held = match guest.shadow {
            None => false,
            Some(Shadow::MovSs) => true,
            Some(Shadow::Sti) => self.quirks.sti_holds_nmi,
        };
        if controls.nmi_window && !self.virtually_blocked && !held {
            return self.exit(controls, Reason::NmiWindow);
        }
        if self.latch && !self.blocked && !held {
            self.latch = false;
            if controls.nmi_exiting {
                return self.exit(controls, Reason::Nmi);
            }
            self.blocked = true;
            return self.deliver(guest, controls, place, programs, filled, log);
        }
        if guest.halted {
            return Event::Waits;
        }
        self.execute(guest, controls, place, programs, filled, log)
    }

    fn execute(
        &mut self,
        guest: &mut Guest,
        controls: Controls,
        place: Place,
        programs: &Programs,
        filled: &Filled,
        log: &mut Vec<Log>,
    ) -> Event {
        let frame = guest.top();
        let op = programs.op(guest.level, frame);
        if op == Op::End {
            return Event::Ended;
        }
        if place.exits(op) {
            return self.exit(controls, Reason::Instruction(op));
        }
        let meets_violation = place.has_violations()
            && matches!(op, Op::TouchFault | Op::HltFault | Op::IretFault)
            && !filled.touched.contains(&(guest.level, frame));
        if meets_violation {
            let mut bit12 = false;
            if op == Op::IretFault {
                bit12 = self.iret(controls);
            }
            return self.exit(
                controls,
                Reason::EptViolation {
                    bit12,
                    vectoring: false,
                },
            );
        }
        guest.retire(log);
        match op {
            Op::MovSs => guest.shadow = Some(Shadow::MovSs),
            Op::Sti => guest.shadow = Some(Shadow::Sti),
            Op::Hlt | Op::HltFault => guest.halted = true,
            Op::Iret | Op::IretFault => {
                self.iret(controls);
                if frame.code != Code::Main {
                    guest.frames.pop();
                }
            }
            Op::Fault => {
                log.push(Log::Exception(guest.level));
                guest.push(Code::Exception);
            }
            Op::CpuidTf => guest.debug_pending = true,
            Op::Nop | Op::Cpuid | Op::TouchFault | Op::Vmresume | Op::End => {}
        }
        self.mtf_pending = controls.mtf;
        Event::Went
    }

    /// Unblocks as IRET does; true if blocking was in effect (and where that
    /// is undefined, true as well).
    fn iret(&mut self, controls: Controls) -> bool {
        if controls.virtual_nmis {
            core::mem::take(&mut self.virtually_blocked)
        } else if !controls.nmi_exiting {
            core::mem::take(&mut self.blocked)
        } else {
            true
        }
    }

    /// An NMI arrives. One fits into the latch; one more is lost.
    pub fn arrive(&mut self) {
        self.latch = true;
    }
}
