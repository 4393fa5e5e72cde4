//! What L1 gets where an access to an MSR exits: the list is
//! `core/src/policy/msr_list.rs`.

use crate::arch::msr;
use crate::cpu::percpu::Cpu;
use crate::mem::Tables;
use core::ops::RangeInclusive;
use umbra_arch::Gpa1;
use umbra_arch::msr::{FeatureControl, bitmap};
use umbra_core::msr_list::{self, Access, access};
use umbra_ept::invalidate::Invalidate;

/// The access causes #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralProtection;

/// The MSRs that a bitmap covers.
fn covered() -> impl Iterator<Item = u32> {
    (0..=bitmap::LOW_LAST).chain(bitmap::HIGH_FIRST..=bitmap::HIGH_LAST)
}

/// Fills vmcs01's MSR bitmap, a page of zeros.
pub fn fill_bitmap(bytes: &mut [u8]) {
    for index in covered() {
        for is_write in [false, true] {
            if msr_list::exits(index, is_write)
                && let Some((byte, bit)) = bitmap::place(index, is_write)
                && let Some(byte) = bytes.get_mut(byte)
            {
                *byte |= 1 << bit;
            }
        }
    }
}

/// Prints the MSRs that the CPU answers and L1 is not shown, a range a line.
pub fn show_hidden() {
    let mut found: Option<RangeInclusive<u32>> = None;
    for index in covered().map(Some).chain([None]) {
        let hidden =
            index.filter(|&index| access(index).is_none() && msr::read_safe(index).is_some());
        if let (Some(range), Some(index)) = (&found, hidden)
            && index == range.end() + 1
        {
            found = Some(*range.start()..=index);
        } else if let Some(range) =
            core::mem::replace(&mut found, hidden.map(|index| index..=index))
        {
            crate::say!("MSR {:x} to {:x} is hidden", range.start(), range.end());
        }
    }
}

/// RDMSR of L1.
///
/// # Errors
/// [`GeneralProtection`] where the CPU, as L1 sees it, lacks the MSR.
pub fn read(cpu: &Cpu, index: u32) -> Result<u64, GeneralProtection> {
    let value = match access(index) {
        // No access of L1's to the ones in the VMCS comes here: what the CPU has
        // is L0's.
        None | Some(Access::InVmcs) => None,
        Some(Access::Shadowed) => shadowed(cpu, index),
        Some(Access::Filtered) => {
            msr::read_safe(index).map(|value| value & msr_list::read_mask(index))
        }
        Some(Access::Through | Access::ReadOnly | Access::Locked | Access::Checked) => {
            msr::read_safe(index)
        }
    };
    value.ok_or(GeneralProtection)
}

/// L1's own of an MSR that L0 answers for.
fn shadowed(cpu: &Cpu, index: u32) -> Option<u64> {
    match index {
        msr::IA32_FEATURE_CONTROL => Some(cpu.feature_control),
        msr::IA32_VMX_BASIC..=msr::IA32_VMX_EXIT_CTLS2 => cpu.offered.msr(index),
        msr::IA32_BIOS_UPDT_TRIG => msr::read_safe(index),
        _ => cpu.mtrrs.read_msr(index),
    }
}

/// WRMSR of L1.
///
/// # Errors
/// [`GeneralProtection`] where the CPU, as L1 sees it, lacks the MSR or
/// refuses the value.
pub fn write(cpu: &mut Cpu, index: u32, value: u64) -> Result<(), GeneralProtection> {
    match access(index) {
        None | Some(Access::InVmcs | Access::ReadOnly | Access::Filtered) => Err(GeneralProtection),
        Some(Access::Locked) if msr::read_safe(index) == Some(value) => Ok(()),
        Some(Access::Locked) => Err(GeneralProtection),
        Some(Access::Shadowed) => write_shadowed(cpu, index, value),
        Some(Access::Checked) if index == msr::IA32_APIC_BASE => write_apic_base(value),
        Some(Access::Checked) => match msr_list::checked(index, value) {
            Some(value) => write_through(index, value),
            None => Err(GeneralProtection),
        },
        Some(Access::Through) => write_through(index, value),
    }
}

fn write_shadowed(cpu: &mut Cpu, index: u32, value: u64) -> Result<(), GeneralProtection> {
    match index {
        msr::IA32_FEATURE_CONTROL => write_feature_control(cpu, value),
        // L1 reads the CPU's own revision afterwards and finds nothing newer.
        msr::IA32_BIOS_UPDT_TRIG => Ok(()),
        msr::IA32_VMX_BASIC..=msr::IA32_VMX_EXIT_CTLS2 => Err(GeneralProtection),
        _ => write_mtrr(cpu, index, value),
    }
}

/// An MSR that is L1's own, with a value that the list lets through.
fn write_through(index: u32, value: u64) -> Result<(), GeneralProtection> {
    // SAFETY: the list says of each such MSR why L0 does not depend on it; the CPU
    // itself refuses what it lacks.
    if unsafe { msr::write_safe(index, value) } {
        Ok(())
    } else {
        Err(GeneralProtection)
    }
}

fn write_feature_control(cpu: &mut Cpu, value: u64) -> Result<(), GeneralProtection> {
    // Without SMX in CPUID, only these two bits are there to be set.
    let known = (FeatureControl::LOCK | FeatureControl::VMX_OUTSIDE_SMX).bits();
    if FeatureControl::LOCK.is_in(cpu.feature_control) || value & !known != 0 {
        return Err(GeneralProtection);
    }
    cpu.feature_control = value;
    Ok(())
}

/// L1 may move its APIC, but not over L0's memory: L0's own accesses would
/// reach the APIC then.
fn write_apic_base(value: u64) -> Result<(), GeneralProtection> {
    let base = Gpa1::in_entry(value);
    if crate::mem::layout().touches_hidden(base, crate::mem::PAGE_BYTES) {
        return Err(GeneralProtection);
    }
    // L0 does not use the APIC while L1 runs.
    write_through(msr::IA32_APIC_BASE, value)
}

/// L1's own copy changes; ept01's memory types follow before a guest runs on
/// them, so that a list of many such MSRs costs one change of ept01.
fn write_mtrr(cpu: &mut Cpu, index: u32, value: u64) -> Result<(), GeneralProtection> {
    if cpu.mtrrs.read_msr(index) == Some(value) {
        return Ok(());
    }
    cpu.mtrrs
        .write_msr(index, value)
        .map_err(|_| GeneralProtection)?;
    cpu.has_new_mtrrs = true;
    Ok(())
}

/// Before a guest runs on ept01, or ept02 is made from it: its types are those
/// of L1's MTRRs.
#[inline]
pub fn settle_mtrrs(cpu: &mut Cpu) {
    if cpu.has_new_mtrrs {
        retype(cpu);
    }
}

/// ept01 takes its types from L1's MTRRs, which have changed.
#[cold]
fn retype(cpu: &mut Cpu) {
    cpu.has_new_mtrrs = false;
    let owed = cpu.ept01.retype(&mut Tables, &cpu.mtrrs);
    settle(owed);
    cpu.is_ept01_changed = true;
    cpu.ept01.invalidated(&mut Tables);
}

/// Does the INVEPT that a change of tables calls for, on this CPU.
pub fn settle(owed: Invalidate) {
    use crate::arch::vmx::{InveptType, invept};
    let done = match owed {
        Invalidate::None => Ok(()),
        Invalidate::Single(eptp) => invept(InveptType::SingleContext, eptp.raw()),
        Invalidate::All => invept(InveptType::AllContexts, 0),
    };
    if let Err(fail) = done {
        panic!("INVEPT for {owed:?}: {fail:?}");
    }
}
