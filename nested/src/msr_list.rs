//! The three MSR lists of vmcs12, entry by entry, as if L1 did RDMSR and
//! WRMSR. SDM "Loading MSRs", "Saving MSRs", "Loading MSRs" (on VM exit).

use umbra_arch::msr;
use umbra_arch::{Cr0, Efer, Gpa1};
use umbra_vmcs::Field;
use umbra_vmcs::field;
use umbra_vmcs::rules::{MsrEntry, check_msr_load_entry, check_msr_store_entry};

use crate::hw::{Memory, MsrFault, Msrs, VmcsAccess};
use crate::slots::SlotId;
use crate::state::Nested;

/// MSRs that live in the VMCS while a guest runs.
pub(crate) const fn in_vmcs(index: u32) -> Option<Field> {
    Some(match index {
        msr::IA32_EFER => field::GUEST_IA32_EFER,
        msr::IA32_PAT => field::GUEST_IA32_PAT,
        msr::IA32_DEBUGCTL => field::GUEST_IA32_DEBUGCTL,
        msr::IA32_SYSENTER_CS => field::GUEST_IA32_SYSENTER_CS,
        msr::IA32_SYSENTER_ESP => field::GUEST_IA32_SYSENTER_ESP,
        msr::IA32_SYSENTER_EIP => field::GUEST_IA32_SYSENTER_EIP,
        msr::IA32_FS_BASE => field::GUEST_FS_BASE,
        msr::IA32_GS_BASE => field::GUEST_GS_BASE,
        _ => return None,
    })
}

fn read_entry(hw: &impl Memory, list: Gpa1, number: u64) -> MsrEntry {
    let mut bytes = [0; MsrEntry::BYTES as usize];
    hw.read_l1(list.plus(MsrEntry::BYTES * number), &mut bytes);
    let all = u128::from_le_bytes(bytes);
    MsrEntry::from_halves(all as u64, (all >> 64) as u64)
}

impl Nested {
    /// Loads the VM-entry list into L2. vmcs02 is current.
    ///
    /// # Errors
    /// The number, from 1, of the entry that cannot be loaded.
    pub(crate) fn load_entry_msrs(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs),
        id: SlotId,
    ) -> Result<(), u64> {
        let v = self.slots.get(id);
        let count = u64::from(v.get32(field::VM_ENTRY_MSR_LOAD_COUNT));
        let list = v.gpa1(field::VM_ENTRY_MSR_LOAD_ADDRESS);
        if count != 0 {
            // The list may load these. What vmcs12 has yet to read of them goes then,
            // and should the list fail, vmcs02 has to get vmcs12's again.
            let slot = self.slots.get(id);
            for f in [
                field::GUEST_IA32_EFER,
                field::GUEST_IA32_PAT,
                field::GUEST_IA32_DEBUGCTL,
                field::GUEST_IA32_SYSENTER_CS,
                field::GUEST_IA32_SYSENTER_ESP,
                field::GUEST_IA32_SYSENTER_EIP,
            ] {
                slot.l0_overwrites(hw, f);
            }
        }
        for n in 0..count {
            self.within_limit(n).map_err(|MsrFault| n + 1)?;
            self.load_one(hw, list, n).map_err(|MsrFault| n + 1)?;
        }
        Ok(())
    }

    /// Loads the VM-exit list into L1. vmcs01 is current.
    pub(crate) fn load_exit_msrs(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs),
        id: SlotId,
    ) -> Result<(), MsrFault> {
        let v = self.slots.get(id);
        let count = u64::from(v.get32(field::VM_EXIT_MSR_LOAD_COUNT));
        let list = v.gpa1(field::VM_EXIT_MSR_LOAD_ADDRESS);
        for n in 0..count {
            self.within_limit(n)?;
            self.load_one(hw, list, n)?;
        }
        Ok(())
    }

    /// Stores L2's MSRs. vmcs02 is current.
    pub(crate) fn store_exit_msrs(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs),
        id: SlotId,
    ) -> Result<(), MsrFault> {
        let v = self.slots.get(id);
        let count = u64::from(v.get32(field::VM_EXIT_MSR_STORE_COUNT));
        let list = v.gpa1(field::VM_EXIT_MSR_STORE_ADDRESS);
        // vmcs02's own list is as long as this one, up to one entry.
        let exit_tsc = self.non_root().has_run.then(|| hw.tsc_at_exit());
        for n in 0..count {
            self.within_limit(n)?;
            let entry = read_entry(hw, list, n);
            let value = check_msr_store_entry(&entry, |index| match in_vmcs(index) {
                Some(f) => Some(hw.read(f)),
                None if index == msr::IA32_TIME_STAMP_COUNTER && exit_tsc.is_some() => exit_tsc,
                None => hw.rdmsr_l1(index).ok(),
            })
            .map_err(|_| MsrFault)?;
            let at = list.plus(MsrEntry::BYTES * n + 8);
            hw.write_l1(at, &value.to_le_bytes());
        }
        Ok(())
    }

    /// A list longer than the recommended maximum has undefined results, a
    /// machine check among them (SDM "VM-Exit Controls for MSRs"). One of eight
    /// times that length is processed like any other; behind that an entry
    /// fails, since a walk of the whole 32-bit count could take minutes.
    fn within_limit(&self, n: u64) -> Result<(), MsrFault> {
        if n < 8 * u64::from(self.caps.msr_list_max()) {
            Ok(())
        } else {
            Err(MsrFault)
        }
    }

    fn load_one(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs),
        list: Gpa1,
        n: u64,
    ) -> Result<(), MsrFault> {
        let entry = read_entry(hw, list, n);
        check_msr_load_entry(&entry, |index, value| match in_vmcs(index) {
            Some(f) => self.load_vmcs_msr(hw, f, value).is_ok(),
            None => hw.wrmsr_l1(index, value).is_ok(),
        })
        .map_err(|_| MsrFault)
    }

    /// An MSR that the current VMCS holds: the same checks as WRMSR makes.
    pub(crate) fn load_vmcs_msr(
        &mut self,
        hw: &mut impl VmcsAccess,
        f: Field,
        value: u64,
    ) -> Result<(), MsrFault> {
        let allowed = match f {
            field::GUEST_IA32_EFER => {
                // LME cannot change while paging is on; LMA is read-only.
                let old = hw.read(f);
                let paging = Cr0::PG.is_in(hw.read(field::GUEST_CR0));
                let keeps_lme = !paging || (old ^ value) & Efer::LME.bits() == 0;
                if value & !self.cpu.efer_writable != 0 || !keeps_lme {
                    return Err(MsrFault);
                }
                hw.write(f, value & !Efer::LMA.bits() | old & Efer::LMA.bits());
                return Ok(());
            }
            field::GUEST_IA32_PAT => value
                .to_le_bytes()
                .iter()
                .all(|t| matches!(t, 0 | 1 | 4 | 5 | 6 | 7)),
            field::GUEST_IA32_DEBUGCTL => value & !self.cpu.debugctl_writable == 0,
            field::GUEST_IA32_SYSENTER_CS => true,
            _ => self.cpu.canonical(value),
        };
        if !allowed {
            return Err(MsrFault);
        }
        hw.write(f, value);
        Ok(())
    }
}
