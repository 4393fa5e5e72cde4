//! The MSR areas, entry by entry. SDM "Loading MSRs", "Saving MSRs".

use umbra_arch::msr::{IA32_FS_BASE, IA32_GS_BASE, IA32_SMBASE, IA32_SMM_MONITOR_CTL, is_x2apic};

use super::Answer;

/// One entry of an MSR area, as it lies in memory. SDM "VM-Entry Controls for
/// MSRs".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsrEntry {
    /// Bits 31:0: the MSR's number.
    pub index: u32,
    /// Bits 63:32, reserved.
    pub reserved: u32,
    /// Bits 127:64: the value.
    pub value: u64,
}

impl MsrEntry {
    /// The bytes of an entry.
    pub const BYTES: u64 = 16;

    /// The entry whose two 8-byte halves are given, the lower address first.
    #[inline]
    pub const fn from_halves(low: u64, high: u64) -> Self {
        Self {
            index: low as u32,
            reserved: (low >> 32) as u32,
            value: high,
        }
    }
}

/// A condition that fails the processing of an entry of an MSR area.
#[derive(Clone, Copy)]
pub struct MsrRule {
    /// A stable name.
    pub id: &'static str,
    /// The title of the SDM's section.
    pub section: &'static str,
    /// What has to hold.
    pub what: &'static str,
    holds: fn(&MsrEntry) -> bool,
}

impl MsrRule {
    /// What the CPU answers in a VM-entry MSR-load area. In an area of VM exit
    /// the answer is a VMX abort.
    pub const ENTRY_ANSWER: Answer = Answer::MsrLoading;

    /// Whether the entry keeps to the rule. The rule about RDMSR and WRMSR
    /// always holds here: the caller has to try.
    pub fn holds(&self, entry: &MsrEntry) -> bool {
        (self.holds)(entry)
    }
}

impl core::fmt::Debug for MsrRule {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.id)
    }
}

const LOADING: &str = "Loading MSRs";
const SAVING: &str = "Saving MSRs";

macro_rules! msr_rules {
    ($($name:ident = $id:literal, $section:expr, $what:literal, $holds:expr;)*) => {
        $(
            static $name: MsrRule = MsrRule {
                id: $id,
                section: $section,
                what: $what,
                holds: $holds,
            };
        )*
    };
}

msr_rules! {
    LOAD_BASE = "msr.load.base", LOADING,
        "the MSR is neither IA32_FS_BASE (C0000100H) nor IA32_GS_BASE (C0000101H)",
        |entry| entry.index != IA32_FS_BASE && entry.index != IA32_GS_BASE;
    LOAD_X2APIC = "msr.load.x2apic", LOADING,
        "bits 31:8 of the MSR's number are not 000008H (x2APIC)",
        |entry| !is_x2apic(entry.index);
    LOAD_SMM = "msr.load.smm", LOADING,
        "the MSR is not one that can be written in SMM alone (IA32_SMM_MONITOR_CTL)",
        |entry| entry.index != IA32_SMM_MONITOR_CTL;
    LOAD_RESERVED = "msr.load.reserved", LOADING,
        "bits 63:32 of the entry are 0",
        |entry| entry.reserved == 0;
    LOAD_WRMSR = "msr.load.wrmsr", LOADING,
        "WRMSR of bits 127:64 to the MSR at CPL 0 would not fault",
        |_| true;
    STORE_X2APIC = "msr.store.x2apic", SAVING,
        "bits 31:8 of the MSR's number are not 000008H (x2APIC)",
        |entry| !is_x2apic(entry.index);
    STORE_SMM = "msr.store.smm", SAVING,
        "the MSR is not one that can be read in SMM alone (IA32_SMBASE)",
        |entry| entry.index != IA32_SMBASE;
    STORE_RESERVED = "msr.store.reserved", SAVING,
        "bits 63:32 of the entry are 0",
        |entry| entry.reserved == 0;
    STORE_RDMSR = "msr.store.rdmsr", SAVING,
        "RDMSR of the MSR at CPL 0 would not fault",
        |_| true;
}

/// The rules for an entry of the VM-entry and VM-exit MSR-load areas.
pub static MSR_LOAD_RULES: &[&MsrRule] = &[
    &LOAD_BASE,
    &LOAD_X2APIC,
    &LOAD_SMM,
    &LOAD_RESERVED,
    &LOAD_WRMSR,
];

/// The rules for an entry of the VM-exit MSR-store area.
pub static MSR_STORE_RULES: &[&MsrRule] =
    &[&STORE_X2APIC, &STORE_SMM, &STORE_RESERVED, &STORE_RDMSR];

fn first_broken(
    rules: &'static [&'static MsrRule],
    entry: &MsrEntry,
) -> Result<(), &'static MsrRule> {
    match rules.iter().find(|rule| !rule.holds(entry)) {
        Some(rule) => Err(rule),
        None => Ok(()),
    }
}

/// Loads one MSR: the checks, then `wrmsr`, which says whether WRMSR of the
/// value would succeed (and may do it).
///
/// # Errors
/// The first broken rule. At VM entry the answer is exit reason 34 with the
/// entry's number, from 1, as its qualification; at VM exit a VMX abort.
pub fn check_msr_load_entry(
    entry: &MsrEntry,
    wrmsr: impl FnOnce(u32, u64) -> bool,
) -> Result<(), &'static MsrRule> {
    first_broken(MSR_LOAD_RULES, entry)?;
    if wrmsr(entry.index, entry.value) {
        Ok(())
    } else {
        Err(&LOAD_WRMSR)
    }
}

/// The value to store for one entry of the VM-exit MSR-store area: the checks,
/// then `rdmsr`, `None` where RDMSR would fault.
///
/// # Errors
/// The first broken rule; the answer is a VMX abort.
pub fn check_msr_store_entry(
    entry: &MsrEntry,
    rdmsr: impl FnOnce(u32) -> Option<u64>,
) -> Result<u64, &'static MsrRule> {
    first_broken(MSR_STORE_RULES, entry)?;
    rdmsr(entry.index).ok_or(&STORE_RDMSR)
}
