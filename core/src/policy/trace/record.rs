//! One exit of the trace.

use core::fmt;
use umbra_vmcs::Field;
use umbra_vmcs::exit::{ENTRY_FAILURE, Reason};

/// What is known of an exit before anything is done about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Before {
    /// L2 ran.
    pub is_l2: bool,
    /// The exit-reason field.
    pub reason: u32,
    /// RIP of the level that ran.
    pub rip: u64,
    /// The exit qualification.
    pub qualification: u64,
    /// By the reason: the MSR, CPUID's leaf, the VMCS field's encoding, the
    /// guest-physical address, the VM-exit interruption information.
    pub operand: u64,
    /// The time-stamp counter.
    pub tsc: u64,
}

impl Before {
    fn known(&self) -> Option<Reason> {
        Reason::from_number(self.reason as u16)
    }
}

/// What is known right before the next VM entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct After {
    /// L2 runs next.
    pub in_l2: bool,
    /// RIP of the level that runs next.
    pub rip: u64,
    /// The VM-entry interruption information.
    pub event: u32,
    /// The VM-exit instruction length that came with the exit, if L1 ran.
    pub instruction_bytes: u64,
}

/// What became of an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Became {
    /// The CPU has not come to the next VM entry yet.
    Unfinished,
    /// L1 goes on behind the instruction.
    Skipped,
    /// L1 goes on where it was.
    Resumed,
    /// L1 goes on somewhere else: INIT, a start-up IPI, a task switch.
    Moved,
    /// L1's VM entry: L2 runs.
    Entered,
    /// L1's VM entry failed by an exit to L1.
    EntryFailed,
    /// L0 dealt with it, L2 goes on.
    Handled,
    /// L1 gets the exit.
    Reflected,
}

impl Became {
    const ALL: [Self; 8] = [
        Self::Unfinished,
        Self::Skipped,
        Self::Resumed,
        Self::Moved,
        Self::Entered,
        Self::EntryFailed,
        Self::Handled,
        Self::Reflected,
    ];

    /// Compares what was with what is.
    pub fn of(before: &Before, after: &After) -> Self {
        match (before.is_l2, after.in_l2) {
            (true, true) => Self::Handled,
            (true, false) => Self::Reflected,
            (false, true) => Self::Entered,
            (false, false) => {
                let behind = before.rip.wrapping_add(after.instruction_bytes);
                let is_entry = matches!(before.known(), Some(Reason::Vmlaunch | Reason::Vmresume));
                let is_instruction = before.known().is_some_and(Reason::is_instruction);
                if after.rip == before.rip {
                    Self::Resumed
                } else if is_instruction && after.rip as u32 == behind as u32 {
                    // Outside of 64-bit code RIP wraps at 32 bits.
                    Self::Skipped
                } else if is_entry {
                    Self::EntryFailed
                } else {
                    Self::Moved
                }
            }
        }
    }

    fn from_number(number: u8) -> Self {
        *Self::ALL
            .get(usize::from(number))
            .unwrap_or(&Self::Unfinished)
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Unfinished => "not finished",
            Self::Skipped => "skipped",
            Self::Resumed => "resumed",
            Self::Moved => "L1 goes on elsewhere",
            Self::Entered => "L2 entered",
            Self::EntryFailed => "VM entry failed",
            Self::Handled => "handled by L0",
            Self::Reflected => "reflected to L1",
        }
    }
}

/// An exit and what became of it. Displays as what one line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The exit.
    pub exit: Before,
    /// What became of it.
    pub became: Became,
    /// The VM-entry interruption information that the next entry has; valid
    /// by its bit 31.
    pub event: u32,
}

impl Record {
    /// In six words; [`from_words`](Self::from_words) undoes it.
    pub fn to_words(self) -> [u64; 6] {
        let marks = u64::from(self.became as u8) | u64::from(self.exit.is_l2) << 8;
        [
            self.exit.tsc,
            u64::from(self.exit.reason) | u64::from(self.event) << 32,
            self.exit.rip,
            self.exit.qualification,
            self.exit.operand,
            marks,
        ]
    }

    /// From what [`to_words`](Self::to_words) gave.
    pub fn from_words([tsc, reason, rip, qualification, operand, marks]: [u64; 6]) -> Self {
        Self {
            exit: Before {
                is_l2: marks >> 8 & 1 != 0,
                reason: reason as u32,
                rip,
                qualification,
                operand,
                tsc,
            },
            became: Became::from_number(marks as u8),
            event: (reason >> 32) as u32,
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exit = &self.exit;
        let level = if exit.is_l2 { "L2" } else { "L1" };
        write!(f, "@{} {level} ", exit.tsc)?;
        match exit.known() {
            Some(reason) => f.write_str(reason.name())?,
            None => write!(f, "reason-{}", exit.reason as u16)?,
        }
        if exit.reason & ENTRY_FAILURE != 0 {
            f.write_str(" (failed entry)")?;
        }
        write!(
            f,
            " rip {:#x} qualification {:#x}",
            exit.rip, exit.qualification
        )?;
        let operand = exit.operand;
        match exit.known() {
            Some(Reason::Rdmsr | Reason::Wrmsr) => write!(f, " msr {operand:#x}")?,
            Some(Reason::Cpuid) => write!(f, " leaf {operand:#x}")?,
            Some(Reason::EptViolation | Reason::EptMisconfiguration) => {
                write!(f, " gpa {operand:#x}")?;
            }
            Some(Reason::ExceptionOrNmi) => write!(f, " information {operand:#x}")?,
            Some(Reason::Vmread | Reason::Vmwrite) => match Field::from_encoding(operand) {
                Some((field, _)) => write!(f, " {}", field.name())?,
                None => write!(f, " field {operand:#x}")?,
            },
            _ => {}
        }
        write!(f, ": {}", self.became.text())?;
        if self.event & 1 << 31 != 0 {
            let kind = match self.event >> 8 & 7 {
                0 => "interrupt",
                2 => "NMI",
                3 => "exception",
                4 => "software interrupt",
                5 => "privileged software exception",
                6 => "software exception",
                _ => "event of type 7,",
            };
            write!(f, ", injecting {kind} {}", self.event & 0xff)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn before(is_l2: bool, reason: Reason) -> Before {
        Before {
            is_l2,
            reason: reason as u32,
            rip: 0x1000,
            ..Before::default()
        }
    }

    fn after(in_l2: bool, rip: u64) -> After {
        After {
            in_l2,
            rip,
            event: 0,
            instruction_bytes: 2,
        }
    }

    #[test]
    fn what_became_of_it_follows_from_the_levels_and_from_rip() {
        for (is_l2, reason, in_l2, rip, became) in [
            (false, Reason::Cpuid, false, 0x1002, Became::Skipped),
            (false, Reason::Rdmsr, false, 0x1000, Became::Resumed),
            (false, Reason::EptViolation, false, 0x1000, Became::Resumed),
            (false, Reason::Sipi, false, 0, Became::Moved),
            (false, Reason::Sipi, false, 0x1002, Became::Moved),
            (false, Reason::Vmlaunch, true, 0x7c00, Became::Entered),
            (false, Reason::Vmresume, false, 0x1002, Became::Skipped),
            (false, Reason::Vmresume, false, 0x2000, Became::EntryFailed),
            (true, Reason::EptViolation, true, 0x1000, Became::Handled),
            (true, Reason::Cpuid, false, 0x2000, Became::Reflected),
        ] {
            let got = Became::of(&before(is_l2, reason), &after(in_l2, rip));
            assert_eq!(got, became, "{reason:?} {rip:#x}");
        }
    }

    #[test]
    fn rip_wraps_outside_of_64_bit_code() {
        let exit = Before {
            rip: 0xffff_fffe,
            ..before(false, Reason::Cpuid)
        };
        assert_eq!(Became::of(&exit, &after(false, 0)), Became::Skipped);
    }

    #[test]
    fn words_give_the_same_record_back() {
        for became in Became::ALL {
            for is_l2 in [false, true] {
                let record = Record {
                    exit: Before {
                        is_l2,
                        reason: 48 | ENTRY_FAILURE,
                        rip: u64::MAX,
                        qualification: 1 << 63,
                        operand: 3,
                        tsc: 4,
                    },
                    became,
                    event: 0x8000_0b0e,
                };
                assert_eq!(Record::from_words(record.to_words()), record);
            }
        }
    }

    #[test]
    fn a_line_names_what_it_can() {
        let record = |reason: Reason, operand, became, event| {
            Record {
                exit: Before {
                    operand,
                    tsc: 7,
                    qualification: 0x181,
                    ..before(false, reason)
                },
                became,
                event,
            }
            .to_string()
        };
        assert_eq!(
            record(Reason::Vmread, 0x681e, Became::Skipped, 0),
            "@7 L1 vmread rip 0x1000 qualification 0x181 GUEST_RIP: skipped"
        );
        assert_eq!(
            record(Reason::Vmread, 0x7fff, Became::Skipped, 0),
            "@7 L1 vmread rip 0x1000 qualification 0x181 field 0x7fff: skipped"
        );
        assert_eq!(
            record(Reason::Wrmsr, 0x3a, Became::Resumed, 0x8000_0b0d),
            "@7 L1 wrmsr rip 0x1000 qualification 0x181 msr 0x3a: resumed, injecting exception 13"
        );
        assert_eq!(
            record(Reason::EptViolation, 0xfee0_0000, Became::Unfinished, 0),
            "@7 L1 ept-violation rip 0x1000 qualification 0x181 gpa 0xfee00000: not finished"
        );
        let unknown = Record {
            exit: Before {
                reason: 35 | ENTRY_FAILURE,
                is_l2: true,
                ..Before::default()
            },
            became: Became::Reflected,
            event: 0,
        };
        assert_eq!(
            unknown.to_string(),
            "@0 L2 reason-35 (failed entry) rip 0x0 qualification 0x0: reflected to L1"
        );
    }
}
