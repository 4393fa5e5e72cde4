//! Bits of control registers and MSRs, under the SDM's names.
#![allow(missing_docs)]

pub const CR0_PE: u64 = 1 << 0;
pub const CR0_ET: u64 = 1 << 4;
pub const CR0_WP: u64 = 1 << 16;
pub const CR0_NW: u64 = 1 << 29;
pub const CR0_CD: u64 = 1 << 30;
pub const CR0_PG: u64 = 1 << 31;

/// Linear-address masking of user addresses, to 57 and to 48 bits.
pub const CR3_LAM_U57: u64 = 1 << 61;
pub const CR3_LAM_U48: u64 = 1 << 62;

pub const CR4_PSE: u64 = 1 << 4;
pub const CR4_PAE: u64 = 1 << 5;
pub const CR4_LA57: u64 = 1 << 12;
pub const CR4_VMXE: u64 = 1 << 13;
pub const CR4_SMXE: u64 = 1 << 14;
pub const CR4_PCIDE: u64 = 1 << 17;
pub const CR4_SMEP: u64 = 1 << 20;
pub const CR4_SMAP: u64 = 1 << 21;
pub const CR4_PKE: u64 = 1 << 22;
pub const CR4_PKS: u64 = 1 << 24;
pub const CR4_LAM_SUP: u64 = 1 << 28;
pub const CR4_FRED: u64 = 1 << 32;

pub const EFER_LME: u64 = 1 << 8;
pub const EFER_LMA: u64 = 1 << 10;
pub const EFER_NXE: u64 = 1 << 11;

pub const RFLAGS_FIXED: u64 = 1 << 1;
pub const RFLAGS_TF: u64 = 1 << 8;
pub const RFLAGS_IF: u64 = 1 << 9;
pub const RFLAGS_RF: u64 = 1 << 16;
pub const RFLAGS_VM: u64 = 1 << 17;
pub const RFLAGS_AC: u64 = 1 << 18;
/// CF, PF, AF, ZF, SF, OF: what VMsucceed and VMfail write.
pub const RFLAGS_STATUS: u64 = 1 << 0 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 11;
pub const RFLAGS_CF: u64 = 1 << 0;
pub const RFLAGS_ZF: u64 = 1 << 6;

pub const MSR_IA32_TSC: u32 = 0x10;
pub const MSR_IA32_SYSENTER_CS: u32 = 0x174;
pub const MSR_IA32_SYSENTER_ESP: u32 = 0x175;
pub const MSR_IA32_SYSENTER_EIP: u32 = 0x176;
pub const MSR_IA32_DEBUGCTL: u32 = 0x1d9;
pub const MSR_IA32_PAT: u32 = 0x277;
pub const MSR_IA32_PERF_GLOBAL_CTRL: u32 = 0x38f;
pub const MSR_IA32_PKRS: u32 = 0x6e1;
pub const MSR_EFER: u32 = 0xc000_0080;
pub const MSR_FS_BASE: u32 = 0xc000_0100;
pub const MSR_GS_BASE: u32 = 0xc000_0101;

/// DR7: the local and global enables of the four breakpoints.
pub const DR7_ENABLES: u64 = 0xff;

/// IA32_DEBUGCTL.BTF: single-step on branches.
pub const DEBUGCTL_BTF: u64 = 1 << 1;

/// Interruptibility state, SDM "Guest Non-Register State".
pub const BLOCKING_BY_STI: u64 = 1 << 0;
pub const BLOCKING_BY_MOV_SS: u64 = 1 << 1;
pub const BLOCKING_BY_NMI: u64 = 1 << 3;

/// "Segment unusable" in an access-rights field.
pub const AR_UNUSABLE: u64 = 1 << 16;

/// Event information: the valid bit.
pub const INFO_VALID: u64 = 1 << 31;
