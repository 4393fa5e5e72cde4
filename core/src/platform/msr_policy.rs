//! Which MSRs of L1 exit, and what it gets then.
//!
//! An MSR that the bitmap lets through is L1's own: the VMCS switches it, or
//! L0 has no use for it. One outside the bitmap's two ranges always exits.

use crate::arch::{cpuid, msr};
use crate::cpu::percpu::Cpu;
use crate::machine::machine;
use crate::mem::Tables;
use umbra_arch::msr::{CoreCapabilities, FeatureControl, MiscEnable};
use umbra_core::cpuid_list;
use umbra_ept::invalidate::Invalidate;
use umbra_ept::mtrr::Mtrrs;

/// The MSRs of Intel PT, which writes to physical addresses that EPT does not
/// check; hidden in CPUID as well.
const INTEL_PT: core::ops::RangeInclusive<u32> = 0x560..=0x58f;

/// The debug store: PEBS writes its records to linear addresses, which are L0's
/// own when the counter runs over in L0. Hidden in CPUID as well.
const DEBUG_STORE: [u32; 2] = [0x3f1, 0x600];
/// The hardware-feedback interface writes to a physical address that EPT does
/// not check. Hidden in CPUID as well.
const HARDWARE_FEEDBACK: core::ops::RangeInclusive<u32> = 0x17d0..=0x17d4;
/// Remote action requests: the CPU writes to physical addresses that EPT does not
/// check, and to MSRs that no bitmap guards, in L0 as well.
/// IA32_CORE_CAPABILITIES says by a bit that they are there.
const REMOTE_ACTION: core::ops::RangeInclusive<u32> = 0xed..=0xf0;
const HAS_REMOTE_ACTION: u64 = CoreCapabilities::REMOTE_ACTION.bits();
/// Bit 34: no execute-disable pages, which L0's own tables have.
const XD_DISABLE: u64 = MiscEnable::XD_DISABLE.bits();
/// MSR_MEMORY_CTRL bit 28 has locked accesses to uncacheable memory fault, L0's
/// as well; IA32_CORE_CAPABILITIES says by bit 4 that it is there.
const MEMORY_CTRL: u32 = 0x33;
const UC_LOCK_DISABLE: u64 = 1 << 28;
const HAS_UC_LOCK_DISABLE: u64 = 1 << 4;
/// Last-branch records go on in L0 and would show L1 where it runs. Hidden in
/// CPUID as well.
const LAST_BRANCHES: [u32; 2] = [0x14ce, 0x14cf];
/// The overclocking mailbox sets voltages at which L0 computes wrongly, too;
/// IA32_TME_ACTIVATE and its masks change what is in L0's memory.
const PLATFORM: [u32; 4] = [0x150, 0x981, 0x982, 0x983];
/// While L1 runs these are in vmcs01, and what the CPU holds is L0's: no access
/// of L1's comes here.
const IN_VMCS: [u32; 8] = [
    msr::IA32_EFER,
    msr::IA32_FS_BASE,
    msr::IA32_GS_BASE,
    msr::IA32_PAT,
    msr::IA32_DEBUGCTL,
    msr::IA32_SYSENTER_CS,
    msr::IA32_SYSENTER_ESP,
    msr::IA32_SYSENTER_EIP,
];

/// An MSR that L1 is not shown.
fn is_hidden(index: u32) -> bool {
    INTEL_PT.contains(&index)
        || HARDWARE_FEEDBACK.contains(&index)
        || REMOTE_ACTION.contains(&index) && has_remote_action()
        || DEBUG_STORE.contains(&index)
        || LAST_BRANCHES.contains(&index) && has_last_branches()
        || IN_VMCS.contains(&index)
        || is_of_hypervisor(index) && machine().has_hypervisor
}

/// Whether this CPU has architectural last-branch records.
fn has_last_branches() -> bool {
    cpuid::cpuid_or_zero(7, 0).edx & 1 << 19 != 0
}

/// Whether this CPU has remote action requests.
fn has_remote_action() -> bool {
    msr::read_safe(msr::IA32_CORE_CAPABILITIES).is_some_and(|value| value & HAS_REMOTE_ACTION != 0)
}

/// The MSRs of KVM's first clock, low enough for the bitmap. No 64-bit CPU has MSRs
/// of these numbers.
const KVM_CLOCK: [u32; 2] = [0x11, 0x12];

/// Whether no CPU has the MSR but a hypervisor below may: KVM's clocks, and what is
/// out of the bitmap's ranges (KVM 4b564d00h-4b564dffh, Hyper-V and Xen
/// 40000000h-400000ffh). Most of them are written as an address, to which the
/// hypervisor then writes past ept01.
fn is_of_hypervisor(index: u32) -> bool {
    !matches!(index, 0..=0x1fff | 0xc000_0000..=0xc000_1fff) || KVM_CLOCK.contains(&index)
}

/// The access causes #GP(0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralProtection;

/// Sets a bit in one of the MSR bitmap's quarters: reads of low MSRs, of high
/// ones, then writes. SDM "MSR-Bitmap Address".
fn intercept(bitmap: &mut [u8], index: u32, is_write: bool) {
    let (quarter, bit) = match index {
        0..=0x1fff => (0, index),
        0xc000_0000..=0xc000_1fff => (1024, index & 0x1fff),
        _ => return,
    };
    let half = if is_write { 2048 } else { 0 };
    bitmap[half + quarter + (bit / 8) as usize] |= 1 << (bit % 8);
}

/// Fills vmcs01's MSR bitmap, a page of zeros.
pub fn fill_bitmap(bitmap: &mut [u8], mtrrs: &Mtrrs) {
    let both = mtrrs
        .msrs()
        .chain([msr::IA32_FEATURE_CONTROL])
        .chain(msr::IA32_VMX_BASIC..=msr::IA32_VMX_EXIT_CTLS2)
        .chain(INTEL_PT)
        .chain(HARDWARE_FEEDBACK)
        .chain(REMOTE_ACTION)
        .chain([msr::IA32_CORE_CAPABILITIES])
        .chain(DEBUG_STORE)
        .chain(LAST_BRANCHES)
        .chain(KVM_CLOCK);
    for index in both {
        intercept(bitmap, index, false);
        intercept(bitmap, index, true);
    }
    let writes = [
        msr::IA32_BIOS_UPDT_TRIG,
        msr::IA32_APIC_BASE,
        msr::IA32_MISC_ENABLE,
        MEMORY_CTRL,
        msr::IA32_XSS,
    ];
    for index in writes.into_iter().chain(PLATFORM) {
        intercept(bitmap, index, true);
    }
}

/// RDMSR of L1.
///
/// # Errors
/// [`GeneralProtection`] where the CPU, as L1 sees it, lacks the MSR.
pub fn read(cpu: &Cpu, index: u32) -> Result<u64, GeneralProtection> {
    if let Some(value) = cpu.mtrrs.read_msr(index) {
        return Ok(value);
    }
    match index {
        msr::IA32_FEATURE_CONTROL => Ok(cpu.feature_control),
        msr::IA32_VMX_BASIC..=msr::IA32_VMX_EXIT_CTLS2 => {
            cpu.offered.msr(index).ok_or(GeneralProtection)
        }
        _ if is_hidden(index) => Err(GeneralProtection),
        msr::IA32_CORE_CAPABILITIES => msr::read_safe(index)
            .map(|value| value & !(HAS_REMOTE_ACTION | HAS_UC_LOCK_DISABLE))
            .ok_or(GeneralProtection),
        _ => msr::read_safe(index).ok_or(GeneralProtection),
    }
}

/// WRMSR of L1.
///
/// # Errors
/// [`GeneralProtection`] where the CPU, as L1 sees it, lacks the MSR or
/// refuses the value.
pub fn write(cpu: &mut Cpu, index: u32, value: u64) -> Result<(), GeneralProtection> {
    if cpu.mtrrs.read_msr(index).is_some() {
        return write_mtrr(cpu, index, value);
    }
    match index {
        msr::IA32_FEATURE_CONTROL => write_feature_control(cpu, value),
        msr::IA32_VMX_BASIC..=msr::IA32_VMX_EXIT_CTLS2 => Err(GeneralProtection),
        // L1 reads the CPU's own revision afterwards and finds nothing newer.
        msr::IA32_BIOS_UPDT_TRIG => Ok(()),
        msr::IA32_APIC_BASE => write_apic_base(value),
        _ if is_hidden(index) => Err(GeneralProtection),
        msr::IA32_XSS if value & !cpuid_list::XSS != 0 => Err(GeneralProtection),
        MEMORY_CTRL if value & UC_LOCK_DISABLE != 0 => Err(GeneralProtection),
        // As firmware locks them: the value there is may be written.
        _ if PLATFORM.contains(&index) => match msr::read_safe(index) {
            Some(now) if now == value => Ok(()),
            _ => Err(GeneralProtection),
        },
        // Where CPUID tells of no hypervisor there may be one all the same: what it
        // has is not written.
        _ if is_of_hypervisor(index) => match msr::read_safe(index) {
            Some(_) => Ok(()),
            None => Err(GeneralProtection),
        },
        // What the bitmap does not cover: no register that L0 depends on.
        _ => {
            let value = match index {
                msr::IA32_MISC_ENABLE => value & !XD_DISABLE,
                _ => value,
            };
            // SAFETY: see above; the CPU itself refuses what it lacks.
            if unsafe { msr::write_safe(index, value) } {
                Ok(())
            } else {
                Err(GeneralProtection)
            }
        }
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
    let base = value & 0x000f_ffff_ffff_f000;
    if crate::mem::layout().touches_hidden(base, crate::mem::PAGE_BYTES) {
        return Err(GeneralProtection);
    }
    // SAFETY: L0 does not use the APIC while L1 runs; the CPU itself refuses
    // what it does not support.
    if unsafe { msr::write_safe(msr::IA32_APIC_BASE, value) } {
        Ok(())
    } else {
        Err(GeneralProtection)
    }
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
