//! What a rule may look at.

use umbra_arch::vmx_cap::VmxBasic;
use umbra_arch::{AccessRights, Rflags};

use super::CpuFacts;
use crate::caps::VmxCaps;
use crate::controls::{Entry, Exit, Pin, Proc, Proc2, Proc3};
use crate::field::{self, Field};
use crate::vmcs12::Vmcs12;

/// L1's physical memory, as the rules that look behind a pointer read it.
pub trait L1Memory {
    /// The 4 bytes at the physical address, little-endian. What an address
    /// without memory gives is the bus's choice (all ones on a PC).
    fn read_u32(&self, address: u64) -> u32;
    /// The 8 bytes at the physical address, little-endian.
    fn read_u64(&self, address: u64) -> u64;
}

/// A machine without memory: reads give all ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMemory;

impl L1Memory for NoMemory {
    fn read_u32(&self, _address: u64) -> u32 {
        u32::MAX
    }
    fn read_u64(&self, _address: u64) -> u64 {
        u64::MAX
    }
}

/// L1's own state at the VM entry. Umbra never runs L1 in SMM, so that is not
/// among it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct L1Facts {
    /// IA32_EFER.LMA.
    pub ia32e_mode: bool,
    /// The physical address of the current VMCS.
    pub current_vmcs: u64,
    /// IA32_RTIT_CTL.TraceEn.
    pub pt_enabled: bool,
}

/// What the rules of one VM entry are evaluated on.
pub struct Ctx<'a> {
    vmcs: &'a Vmcs12,
    /// What the CPU that L1 sees offers.
    pub caps: &'a VmxCaps,
    /// What else is known of that CPU.
    pub cpu: &'a CpuFacts,
    /// L1's own state.
    pub l1: L1Facts,
    /// L1's memory.
    pub mem: &'a dyn L1Memory,
    #[cfg(test)]
    recorder: Option<&'a core::cell::Cell<field::FieldSet>>,
}

impl<'a> Ctx<'a> {
    /// Everything that the rules look at.
    pub fn new(
        vmcs: &'a Vmcs12,
        caps: &'a VmxCaps,
        cpu: &'a CpuFacts,
        l1: L1Facts,
        mem: &'a dyn L1Memory,
    ) -> Self {
        Self {
            vmcs,
            caps,
            cpu,
            l1,
            mem,
            #[cfg(test)]
            recorder: None,
        }
    }

    /// The same, with every field read noted in `recorder`.
    #[cfg(test)]
    pub(super) fn recording(mut self, recorder: &'a core::cell::Cell<field::FieldSet>) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// A field of vmcs12. The only way to one, so that a test can see which
    /// fields a rule reads.
    #[inline(always)]
    pub fn get(&self, field: Field) -> u64 {
        #[cfg(test)]
        if let Some(recorder) = self.recorder {
            let mut seen = recorder.get();
            seen.insert(field);
            recorder.set(seen);
        }
        self.vmcs.get(field)
    }

    /// A field of 32 bits or fewer.
    #[inline(always)]
    pub fn get32(&self, field: Field) -> u32 {
        self.get(field) as u32
    }

    /// Whether all of the pin-based controls given are 1.
    #[inline(always)]
    pub fn pin(&self, bits: Pin) -> bool {
        self.get32(field::PIN_BASED_CONTROLS) & bits.bits() == bits.bits()
    }

    /// Whether all of the primary processor-based controls given are 1.
    #[inline(always)]
    pub fn proc(&self, bits: Proc) -> bool {
        self.get32(field::PRIMARY_PROCESSOR_BASED_CONTROLS) & bits.bits() == bits.bits()
    }

    /// The secondary controls in effect: none when they are not activated.
    #[inline(always)]
    pub fn proc2_word(&self) -> u32 {
        if self.proc(Proc::ACTIVATE_SECONDARY_CONTROLS) {
            self.get32(field::SECONDARY_PROCESSOR_BASED_CONTROLS)
        } else {
            0
        }
    }

    /// Whether all of the secondary controls given are in effect.
    #[inline(always)]
    pub fn proc2(&self, bits: Proc2) -> bool {
        self.proc2_word() & bits.bits() == bits.bits()
    }

    /// The tertiary controls in effect.
    #[inline(always)]
    pub fn proc3_word(&self) -> u64 {
        if self.proc(Proc::ACTIVATE_TERTIARY_CONTROLS) {
            self.get(field::TERTIARY_PROCESSOR_BASED_CONTROLS)
        } else {
            0
        }
    }

    /// Whether all of the tertiary controls given are in effect.
    #[inline(always)]
    pub fn proc3(&self, bits: Proc3) -> bool {
        self.proc3_word() & bits.bits() == bits.bits()
    }

    /// Whether all of the VM-exit controls given are 1.
    #[inline(always)]
    pub fn exit(&self, bits: Exit) -> bool {
        self.get32(field::PRIMARY_VM_EXIT_CONTROLS) & bits.bits() == bits.bits()
    }

    /// The secondary VM-exit controls in effect.
    #[inline(always)]
    pub fn exit2_word(&self) -> u64 {
        if self.exit(Exit::ACTIVATE_SECONDARY_CONTROLS) {
            self.get(field::SECONDARY_VM_EXIT_CONTROLS)
        } else {
            0
        }
    }

    /// Whether all of the VM-entry controls given are 1.
    #[inline(always)]
    pub fn entry(&self, bits: Entry) -> bool {
        self.get32(field::VM_ENTRY_CONTROLS) & bits.bits() == bits.bits()
    }

    /// Whether the guest is to be in IA-32e mode.
    #[inline(always)]
    pub(super) fn ia32e_guest(&self) -> bool {
        self.entry(Entry::IA32E_MODE_GUEST)
    }

    /// Whether the host is in IA-32e mode after the VM exit.
    #[inline(always)]
    pub(super) fn ia32e_host(&self) -> bool {
        self.exit(Exit::HOST_ADDRESS_SPACE_SIZE)
    }

    /// Whether the guest is unrestricted.
    #[inline(always)]
    pub(super) fn unrestricted(&self) -> bool {
        self.proc2(Proc2::UNRESTRICTED_GUEST)
    }

    /// Whether the guest is to be in virtual-8086 mode.
    #[inline(always)]
    pub(super) fn v8086(&self) -> bool {
        Rflags::VM.is_in(self.get(field::GUEST_RFLAGS))
    }

    /// Whether the guest is to run 64-bit code.
    #[inline(always)]
    pub(super) fn code64(&self) -> bool {
        self.ia32e_guest()
            && AccessRights::from_bits(self.get32(field::GUEST_CS_ACCESS_RIGHTS)).long()
    }

    /// Whether an address lies within the CPU's physical-address width.
    #[inline(always)]
    pub(super) fn within_width(&self, address: u64) -> bool {
        address & !self.cpu.physical_mask() == 0
    }

    /// Whether the CPU may find a structure of the VMM at the address: within
    /// the physical-address width, or within 32 bits where IA32_VMX_BASIC[48]
    /// says so.
    #[inline(always)]
    pub(super) fn structure_at(&self, address: u64) -> bool {
        self.within_width(address)
            && (!VmxBasic::ADDRESSES_32_BIT.is_in(self.caps.basic) || address >> 32 == 0)
    }

    /// The same for a structure that fills a page.
    #[inline(always)]
    pub(super) fn page_at(&self, address: u64) -> bool {
        address & 0xfff == 0 && self.structure_at(address)
    }

    /// Whether the address is canonical for the CPU's linear-address width.
    #[inline(always)]
    pub(super) fn canonical(&self, address: u64) -> bool {
        self.cpu.canonical(address)
    }
}
