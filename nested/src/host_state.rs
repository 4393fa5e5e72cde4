//! The host state of vmcs12 into vmcs01: how L1 goes on after a VM exit.
//!
//! SDM "Loading Host State" and "VMX Aborts".

use umbra_arch::msr;
use umbra_arch::state::Blocking;
use umbra_arch::{Cr0, Efer};
use umbra_ept::vpid::VPID_L1;
use umbra_vmcs::field;

use crate::derived::OnExit;
use crate::hw::{Memory, Msrs, Translations, VmcsAccess};
use crate::pdptes::load_pdptes;
use crate::slots::{Slot, SlotId};
use crate::state::Nested;

/// The VMX-abort indicators that Umbra can come to.
pub mod abort {
    /// "There was a failure in saving guest MSRs."
    pub const SAVING_GUEST_MSRS: u32 = 1;
    /// "Host checking of the page-directory-pointer-table entries failed."
    pub const PDPTES: u32 = 2;
    /// "There was a failure on loading host MSRs."
    pub const LOADING_HOST_MSRS: u32 = 4;

    /// What an indicator says, in words for a person to whom L1's VMCS is
    /// known.
    pub const fn describe(indicator: u32) -> &'static str {
        match indicator {
            SAVING_GUEST_MSRS => "an entry of the VM-exit MSR-store list cannot be stored",
            PDPTES => "a PDPTE at HOST_CR3 has reserved bits set",
            LOADING_HOST_MSRS => "an entry of the VM-exit MSR-load list cannot be loaded",
            _ => "a VM exit cannot be completed",
        }
    }
}

/// Bits of CR0 that VM exit leaves alone: ET, CD, NW and the reserved ones.
const CR0_UNMODIFIED: u64 =
    !0xffff_ffff | Cr0::CACHING.bits() | 0x1ff8_0000 | 1 << 17 | 0xffc0 | Cr0::ET.bits();

/// What L2 leaves to L1 where vmcs12 loads nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeftByL2 {
    pub efer: u64,
    pub pat: u64,
    pub cr0: u64,
    /// NMIs are blocked after this exit.
    pub blocks_nmis: bool,
}

impl Nested {
    /// Loads L1's state from vmcs12 into vmcs01, which is current, and then
    /// the VM-exit MSR-load list. `left` is `None` when L2 never ran: then L1's
    /// own state before the entry takes its place.
    ///
    /// # Errors
    /// The VMX-abort indicator, already stored in L1's VMCS region.
    #[inline(always)]
    pub(crate) fn load_host_state(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs + Translations),
        id: SlotId,
        left: Option<LeftByL2>,
    ) -> Result<(), u32> {
        let left = match left {
            Some(left) => left,
            None => LeftByL2 {
                efer: hw.read(field::GUEST_IA32_EFER),
                pat: hw.read(field::GUEST_IA32_PAT),
                cr0: hw.read(field::GUEST_CR0),
                blocks_nmis: Blocking::NMI
                    .is_in(hw.read(field::GUEST_INTERRUPTIBILITY_STATE) as u32),
            },
        };
        let on = write_host_state(hw, self.slots.get(id), &left);
        self.load_rare_host_state(hw, id, on)
    }

    /// The rest of an exit to L1, behind [`write_host_state`]: what few hypervisors have
    /// loaded.
    #[inline(always)]
    pub(crate) fn load_rare_host_state(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs),
        id: SlotId,
        on: OnExit,
    ) -> Result<(), u32> {
        match on.intersects(OnExit::LOADS_PERF | OnExit::PAE_HOST | OnExit::LOAD_LIST) {
            true => self.load_what_few_have(hw, id, on),
            false => Ok(()),
        }
    }

    fn load_what_few_have(
        &mut self,
        hw: &mut (impl VmcsAccess + Memory + Msrs),
        id: SlotId,
        on: OnExit,
    ) -> Result<(), u32> {
        let slot = self.slots.get(id);
        if on.contains(OnExit::LOADS_PERF) {
            // A CPU may have the control and not the MSR.
            let value = slot.get(field::HOST_IA32_PERF_GLOBAL_CTRL);
            let _ = hw.wrmsr_l1(msr::IA32_PERF_GLOBAL_CTRL, value);
        }
        if on.contains(OnExit::PAE_HOST) {
            let pdptes = load_pdptes(hw, slot.get(field::HOST_CR3));
            let reserved = pdpte_reserved(self.cpu.physical_mask());
            if pdptes.iter().any(|p| p & 1 != 0 && p & reserved != 0) {
                return Err(self.vmx_abort(hw, id, abort::PDPTES));
            }
        }
        if self.load_exit_msrs(hw, id).is_err() {
            return Err(self.vmx_abort(hw, id, abort::LOADING_HOST_MSRS));
        }
        Ok(())
    }

    /// Stores the VMX-abort indicator in L1's VMCS region.
    pub(crate) fn vmx_abort(&mut self, hw: &mut impl Memory, id: SlotId, indicator: u32) -> u32 {
        let gpa = self.slots.get(id).gpa();
        hw.write_l1(gpa.plus(4), &indicator.to_le_bytes());
        indicator
    }
}

/// Loads what every hypervisor has loaded by an exit. vmcs01 is current. Gives what an exit
/// does besides.
#[inline(always)]
pub(crate) fn write_host_state(
    hw: &mut (impl VmcsAccess + Translations),
    slot: &Slot,
    left: &LeftByL2,
) -> OnExit {
    let derived = slot.derived();
    hw.write_host_image(&derived.host);
    let on = derived.exit;
    let cr0 = slot.get(field::HOST_CR0) & !CR0_UNMODIFIED | left.cr0 & CR0_UNMODIFIED;
    hw.write(field::GUEST_CR0, cr0);
    hw.write(field::CR0_READ_SHADOW, cr0);
    let mode = Efer::LMA.bits() | Efer::LME.bits();
    let efer = match on.contains(OnExit::KEEPS_EFER) {
        true if on.contains(OnExit::IS_64_BIT) => left.efer | mode,
        true => left.efer & !mode,
        false => slot.get(field::HOST_IA32_EFER),
    };
    hw.write(field::GUEST_IA32_EFER, efer);
    let pat = match on.contains(OnExit::KEEPS_PAT) {
        true => left.pat,
        false => slot.get(field::HOST_IA32_PAT),
    };
    hw.write(field::GUEST_IA32_PAT, pat);
    let interruptibility = if left.blocks_nmis {
        Blocking::NMI
    } else {
        Blocking::empty()
    };
    hw.write(
        field::GUEST_INTERRUPTIBILITY_STATE,
        interruptibility.bits().into(),
    );
    // L1 was active when it entered L2: the activity state is that already.
    if on.contains(OnExit::DROPS_TRANSLATIONS) {
        // Without VPIDs the transition drops what L1 had cached.
        hw.invvpid_single(VPID_L1);
    }
    on
}

/// The bits that must be 0 in a present PDPTE: 2:1, 8:5 and those above the
/// physical width. SDM "PDPTE Registers".
const fn pdpte_reserved(physical_mask: u64) -> u64 {
    0x1e6 | !(physical_mask | 0xfff)
}
