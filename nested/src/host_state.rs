//! The host state of vmcs12 into vmcs01: how L1 goes on after a VM exit.
//!
//! SDM "Loading Host State" and "VMX Aborts".

use umbra_ept::vpid::VPID_L1;
use umbra_vmcs::controls::{Exit, Proc2};
use umbra_vmcs::field::{self, Field};

use crate::bits::*;
use crate::hw::{Memory, Msrs, Translations, VmcsAccess};
use crate::pdptes::load_pdptes;
use crate::slots::SlotId;
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
    !0xffff_ffff | CR0_CD | CR0_NW | 0x1ff8_0000 | 1 << 17 | 0xffc0 | CR0_ET;

/// What L2 leaves to L1 where vmcs12 loads nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeftByL2 {
    pub efer: u64,
    pub pat: u64,
    pub cr0: u64,
    /// NMIs are blocked after this exit.
    pub blocks_nmis: bool,
}

/// A flat data segment and what VM exit makes of code, stack and TR.
const DATA_RIGHTS: u64 = 0xc093;
const CODE_RIGHTS_64: u64 = 0xa09b;
const CODE_RIGHTS_32: u64 = 0xc09b;
const TSS_RIGHTS: u64 = 0x8b;

struct Segment {
    host: Field,
    selector: Field,
    base: Field,
    limit: Field,
    rights: Field,
}

const DATA_SEGMENTS: [Segment; 5] = [
    Segment {
        host: field::HOST_ES_SELECTOR,
        selector: field::GUEST_ES_SELECTOR,
        base: field::GUEST_ES_BASE,
        limit: field::GUEST_ES_LIMIT,
        rights: field::GUEST_ES_ACCESS_RIGHTS,
    },
    Segment {
        host: field::HOST_SS_SELECTOR,
        selector: field::GUEST_SS_SELECTOR,
        base: field::GUEST_SS_BASE,
        limit: field::GUEST_SS_LIMIT,
        rights: field::GUEST_SS_ACCESS_RIGHTS,
    },
    Segment {
        host: field::HOST_DS_SELECTOR,
        selector: field::GUEST_DS_SELECTOR,
        base: field::GUEST_DS_BASE,
        limit: field::GUEST_DS_LIMIT,
        rights: field::GUEST_DS_ACCESS_RIGHTS,
    },
    Segment {
        host: field::HOST_FS_SELECTOR,
        selector: field::GUEST_FS_SELECTOR,
        base: field::GUEST_FS_BASE,
        limit: field::GUEST_FS_LIMIT,
        rights: field::GUEST_FS_ACCESS_RIGHTS,
    },
    Segment {
        host: field::HOST_GS_SELECTOR,
        selector: field::GUEST_GS_SELECTOR,
        base: field::GUEST_GS_BASE,
        limit: field::GUEST_GS_LIMIT,
        rights: field::GUEST_GS_ACCESS_RIGHTS,
    },
];

impl Nested {
    /// Loads L1's state from vmcs12 into vmcs01, which is current, and then
    /// the VM-exit MSR-load list. `left` is `None` when L2 never ran: then L1's
    /// own state before the entry takes its place.
    ///
    /// # Errors
    /// The VMX-abort indicator, already stored in L1's VMCS region.
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
                blocks_nmis: hw.read(field::GUEST_INTERRUPTIBILITY_STATE) & BLOCKING_BY_NMI != 0,
            },
        };
        let is_64_bit = self.slots.get(id).exit(Exit::HOST_ADDRESS_SPACE_SIZE);
        self.load_control_registers(hw, id, &left, is_64_bit);
        self.load_segments(hw, id, is_64_bit);
        let v = self.slots.get(id);
        let mask = if is_64_bit { u64::MAX } else { 0xffff_ffff };
        hw.write(field::GUEST_RIP, v.get(field::HOST_RIP) & mask);
        hw.write(field::GUEST_RSP, v.get(field::HOST_RSP) & mask);
        hw.write(field::GUEST_RFLAGS, RFLAGS_FIXED);
        let interruptibility = if left.blocks_nmis { BLOCKING_BY_NMI } else { 0 };
        hw.write(field::GUEST_INTERRUPTIBILITY_STATE, interruptibility);
        hw.write(field::GUEST_PENDING_DEBUG_EXCEPTIONS, 0);
        hw.write(field::GUEST_ACTIVITY_STATE, 0);

        if !is_64_bit && v.get(field::HOST_CR4) & CR4_PAE != 0 {
            let pdptes = load_pdptes(hw, v.get(field::HOST_CR3));
            let reserved = pdpte_reserved(self.cpu.physical_mask());
            if pdptes.iter().any(|p| p & 1 != 0 && p & reserved != 0) {
                return Err(self.vmx_abort(hw, id, abort::PDPTES));
            }
        }
        let vpid_on = self.slots.get(id).proc2(Proc2::ENABLE_VPID);
        if !vpid_on {
            // Without VPIDs the transition drops what L1 had cached.
            hw.invvpid_single(VPID_L1);
        }
        if self.load_exit_msrs(hw, id).is_err() {
            return Err(self.vmx_abort(hw, id, abort::LOADING_HOST_MSRS));
        }
        Ok(())
    }

    fn load_control_registers(
        &mut self,
        hw: &mut (impl VmcsAccess + Msrs),
        id: SlotId,
        left: &LeftByL2,
        is_64_bit: bool,
    ) {
        let slot = self.slots.get(id);
        let v = &*slot;
        let cr0 = v.get(field::HOST_CR0) & !CR0_UNMODIFIED | left.cr0 & CR0_UNMODIFIED;
        hw.write(field::GUEST_CR0, cr0);
        hw.write(field::CR0_READ_SHADOW, cr0);
        hw.write(field::GUEST_CR3, v.get(field::HOST_CR3));
        let mut cr4 = v.get(field::HOST_CR4);
        if is_64_bit {
            cr4 |= CR4_PAE;
        } else {
            cr4 &= !CR4_PCIDE;
        }
        hw.write(field::GUEST_CR4, cr4);
        hw.write(field::CR4_READ_SHADOW, cr4);
        hw.write(field::GUEST_DR7, 0x400);
        hw.write(field::GUEST_IA32_DEBUGCTL, 0);
        hw.write(
            field::GUEST_IA32_SYSENTER_CS,
            v.get(field::HOST_IA32_SYSENTER_CS),
        );
        hw.write(
            field::GUEST_IA32_SYSENTER_ESP,
            v.get(field::HOST_IA32_SYSENTER_ESP),
        );
        hw.write(
            field::GUEST_IA32_SYSENTER_EIP,
            v.get(field::HOST_IA32_SYSENTER_EIP),
        );
        let efer = if slot.exit(Exit::LOAD_EFER) {
            v.get(field::HOST_IA32_EFER)
        } else if is_64_bit {
            left.efer | EFER_LMA | EFER_LME
        } else {
            left.efer & !(EFER_LMA | EFER_LME)
        };
        hw.write(field::GUEST_IA32_EFER, efer);
        let pat = match slot.exit(Exit::LOAD_PAT) {
            true => v.get(field::HOST_IA32_PAT),
            false => left.pat,
        };
        hw.write(field::GUEST_IA32_PAT, pat);
        if slot.exit(Exit::LOAD_PERF_GLOBAL_CTRL) {
            // A CPU may have the control and not the MSR.
            let value = v.get(field::HOST_IA32_PERF_GLOBAL_CTRL);
            let _ = hw.wrmsr_l1(MSR_IA32_PERF_GLOBAL_CTRL, value);
        }
    }

    fn load_segments(&mut self, hw: &mut impl VmcsAccess, id: SlotId, is_64_bit: bool) {
        let v = self.slots.get(id);
        hw.write(field::GUEST_CS_SELECTOR, v.get(field::HOST_CS_SELECTOR));
        hw.write(field::GUEST_CS_BASE, 0);
        hw.write(field::GUEST_CS_LIMIT, 0xffff_ffff);
        let rights = if is_64_bit {
            CODE_RIGHTS_64
        } else {
            CODE_RIGHTS_32
        };
        hw.write(field::GUEST_CS_ACCESS_RIGHTS, rights);

        for s in &DATA_SEGMENTS {
            let selector = v.get(s.host);
            let base = match s.host {
                field::HOST_FS_SELECTOR => v.get(field::HOST_FS_BASE),
                field::HOST_GS_SELECTOR => v.get(field::HOST_GS_BASE),
                _ => 0,
            };
            // A null selector makes the segment unusable, SS in 64-bit mode
            // included; the rest of the rights is then undefined.
            let unusable = if selector & !3 == 0 { AR_UNUSABLE } else { 0 };
            hw.write(s.selector, selector);
            hw.write(s.base, base);
            hw.write(s.limit, 0xffff_ffff);
            hw.write(s.rights, DATA_RIGHTS | unusable);
        }

        hw.write(field::GUEST_TR_SELECTOR, v.get(field::HOST_TR_SELECTOR));
        hw.write(field::GUEST_TR_BASE, v.get(field::HOST_TR_BASE));
        hw.write(field::GUEST_TR_LIMIT, 0x67);
        hw.write(field::GUEST_TR_ACCESS_RIGHTS, TSS_RIGHTS);
        hw.write(field::GUEST_LDTR_SELECTOR, 0);
        hw.write(field::GUEST_LDTR_ACCESS_RIGHTS, AR_UNUSABLE);
        hw.write(field::GUEST_GDTR_BASE, v.get(field::HOST_GDTR_BASE));
        hw.write(field::GUEST_IDTR_BASE, v.get(field::HOST_IDTR_BASE));
        hw.write(field::GUEST_GDTR_LIMIT, 0xffff);
        hw.write(field::GUEST_IDTR_LIMIT, 0xffff);
    }

    /// Stores the VMX-abort indicator in L1's VMCS region.
    pub(crate) fn vmx_abort(&mut self, hw: &mut impl Memory, id: SlotId, indicator: u32) -> u32 {
        let gpa = self.slots.get(id).gpa();
        hw.write_l1(gpa + 4, &indicator.to_le_bytes());
        indicator
    }
}

/// The bits that must be 0 in a present PDPTE: 2:1, 8:5 and those above the
/// physical width. SDM "PDPTE Registers".
const fn pdpte_reserved(physical_mask: u64) -> u64 {
    0x1e6 | !(physical_mask | 0xfff)
}
