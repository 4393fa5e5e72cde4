//! Exit qualifications. SDM "Exit Qualification".

use bitfield_struct::bitfield;
use bitflags::bitflags;

use crate::flags::on_raw_values;

/// What a control-register access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CrAccessKind {
    /// MOV to the register.
    MovTo = 0,
    /// MOV from it.
    MovFrom = 1,
    /// CLTS.
    Clts = 2,
    /// LMSW.
    Lmsw = 3,
}

impl CrAccessKind {
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::MovTo,
            1 => Self::MovFrom,
            2 => Self::Clts,
            _ => Self::Lmsw,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// SDM "Exit Qualification for Control-Register Accesses".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct CrAccess {
    /// The control register; 0 for CLTS and LMSW.
    #[bits(4)]
    pub register: u8,
    /// What is done.
    #[bits(2, default = CrAccessKind::MovTo)]
    pub kind: CrAccessKind,
    /// LMSW's operand is in memory.
    pub lmsw_memory: bool,
    __: bool,
    /// The general register of MOV.
    #[bits(4)]
    pub gpr: u8,
    #[bits(4)]
    __: u8,
    /// LMSW's operand.
    pub lmsw_source: u16,
    __: u32,
}

/// SDM "Exit Qualification for MOV DR".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DrAccess {
    /// The debug register.
    #[bits(3)]
    pub register: u8,
    __: bool,
    /// MOV from the register.
    pub is_read: bool,
    #[bits(3)]
    __: u8,
    /// The general register.
    #[bits(4)]
    pub gpr: u8,
    #[bits(52)]
    __: u64,
}

/// SDM "Exit Qualification for I/O Instructions".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IoAccess {
    /// 0, 1 or 3: bytes of the access, less one.
    #[bits(3)]
    pub bytes_less_one: u8,
    /// IN or INS.
    pub is_input: bool,
    /// INS or OUTS.
    pub is_string: bool,
    /// With a REP prefix.
    pub is_repeated: bool,
    /// The port is in the instruction and not in DX.
    pub is_immediate: bool,
    #[bits(9)]
    __: u16,
    /// The port.
    pub port: u16,
    __: u32,
}

/// What started a task switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TaskSwitchSource {
    /// CALL.
    Call = 0,
    /// IRET.
    Iret = 1,
    /// JMP.
    Jmp = 2,
    /// A task gate in the IDT.
    Gate = 3,
}

impl TaskSwitchSource {
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Call,
            1 => Self::Iret,
            2 => Self::Jmp,
            _ => Self::Gate,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// SDM "Exit Qualification for Task Switches".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct TaskSwitch {
    /// The selector of the TSS to switch to.
    pub selector: u16,
    #[bits(14)]
    __: u16,
    /// What started it.
    #[bits(2, default = TaskSwitchSource::Call)]
    pub source: TaskSwitchSource,
    __: u32,
}

/// SDM "Exit Qualification for APIC-Access VM Exits from Linear Accesses and
/// Guest-Physical Accesses".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ApicAccess {
    /// The offset in the APIC page of a linear access.
    #[bits(12)]
    pub offset: u16,
    /// The kind of access.
    #[bits(4)]
    pub kind: u8,
    #[bits(48)]
    __: u64,
}

bitflags! {
    /// SDM "Exit Qualification for EPT Violations".
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EptViolation: u64 {
        /// A data read.
        const READ = 1 << 0;
        /// A data write.
        const WRITE = 1 << 1;
        /// An instruction fetch.
        const FETCH = 1 << 2;
        /// The guest-physical address was readable.
        const READABLE = 1 << 3;
        /// It was writable.
        const WRITABLE = 1 << 4;
        /// It was executable, in supervisor mode with mode-based execute control.
        const EXECUTABLE = 1 << 5;
        /// It was executable in user mode, with mode-based execute control.
        const EXECUTABLE_USER = 1 << 6;
        /// The guest linear address is valid.
        const LINEAR_VALID = 1 << 7;
        /// The access was to what the linear address translates to, and not to a
        /// paging structure.
        const TO_TRANSLATION = 1 << 8;
        /// Advanced information: a user-mode linear address.
        const USER = 1 << 9;
        /// Advanced information: a read/write page.
        const READ_WRITE_PAGE = 1 << 10;
        /// Advanced information: an execute-disable page.
        const EXECUTE_DISABLE_PAGE = 1 << 11;
        /// IRET had unblocked NMIs.
        const NMI_UNBLOCKING = 1 << 12;
        /// A shadow-stack access.
        const SHADOW_STACK = 1 << 13;
        /// Asynchronous to instruction execution.
        const ASYNCHRONOUS = 1 << 16;
    }
}

on_raw_values!(EptViolation: u64);

/// Qualifications of a VM entry that failed for invalid guest state. SDM
/// "VM-Entry Failures During or After Loading Guest State".
pub mod entry_failure {
    /// Nothing in particular.
    pub const NONE: u64 = 0;
    /// Loading the PDPTEs.
    pub const PDPTE: u64 = 2;
    /// An NMI injected while STI blocks.
    pub const NMI_INJECTION: u64 = 3;
    /// The VMCS link pointer.
    pub const LINK_POINTER: u64 = 4;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_sdm_has_them() {
        let cr = CrAccess::from_bits(0x1234 << 16 | 7 << 8 | 1 << 6 | 3 << 4);
        assert_eq!((cr.register(), cr.kind()), (0, CrAccessKind::Lmsw));
        assert!(cr.lmsw_memory());
        assert_eq!((cr.gpr(), cr.lmsw_source()), (7, 0x1234));
        let io = IoAccess::from_bits(0x3f8 << 16 | 1 << 6 | 1 << 4 | 3);
        assert_eq!((io.port(), io.bytes_less_one()), (0x3f8, 3));
        assert!(io.is_string() && io.is_immediate() && !io.is_input() && !io.is_repeated());
        let task = TaskSwitch::from_bits(2 << 30 | 0x28);
        assert_eq!(
            (task.selector(), task.source()),
            (0x28, TaskSwitchSource::Jmp)
        );
        let dr = DrAccess::from_bits(9 << 8 | 1 << 4 | 7);
        assert_eq!((dr.register(), dr.gpr(), dr.is_read()), (7, 9, true));
        let apic = ApicAccess::from_bits(3 << 12 | 0x300);
        assert_eq!((apic.offset(), apic.kind()), (0x300, 3));
    }
}
