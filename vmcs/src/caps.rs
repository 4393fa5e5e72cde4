//! VMX capabilities: IA32_VMX_BASIC to IA32_VMX_EXIT_CTLS2.
//! SDM appendix "VMX Capability Reporting Facility".

use umbra_arch::msr;
use umbra_arch::vmx_cap::{VmFunctions, VmxBasic, VmxMisc};

use crate::controls::{Entry, Exit, Pin, Proc, Proc2, Proc3};
use crate::field::{self, Field, FieldSet};
use crate::needs::Needs;

/// A control word's capability: bits 31:0 the allowed 0-settings (1 = must be
/// 1), bits 63:32 the allowed 1-settings (1 = may be 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Allowed(pub u64);

impl Allowed {
    /// The bits that must be 1.
    #[inline]
    pub const fn must_be_one(self) -> u32 {
        self.0 as u32
    }

    /// The bits that may be 1.
    #[inline]
    pub const fn may_be_one(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether `value` keeps to both.
    #[inline]
    pub const fn permits(self, value: u32) -> bool {
        value & self.must_be_one() == self.must_be_one() && value & !self.may_be_one() == 0
    }

    /// The nearest value to `wanted` that keeps to both.
    #[inline]
    pub const fn adjust(self, wanted: u32) -> u32 {
        (wanted | self.must_be_one()) & self.may_be_one()
    }

    /// Without the 1-setting of the bits given (unless they must be 1).
    #[inline]
    pub const fn without(self, bits: u32) -> Self {
        let taken = bits & !self.must_be_one();
        Self(self.0 & !((taken as u64) << 32))
    }
}

/// The values of the capability MSRs; one that the CPU lacks is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct VmxCaps {
    /// IA32_VMX_BASIC.
    pub basic: u64,
    /// IA32_VMX_PINBASED_CTLS.
    pub pin_plain: Allowed,
    /// IA32_VMX_PROCBASED_CTLS.
    pub proc_plain: Allowed,
    /// IA32_VMX_EXIT_CTLS.
    pub exit_plain: Allowed,
    /// IA32_VMX_ENTRY_CTLS.
    pub entry_plain: Allowed,
    /// IA32_VMX_MISC.
    pub misc: u64,
    /// IA32_VMX_CR0_FIXED0: the bits that must be 1.
    pub cr0_fixed0: u64,
    /// IA32_VMX_CR0_FIXED1: the bits that may be 1.
    pub cr0_fixed1: u64,
    /// IA32_VMX_CR4_FIXED0.
    pub cr4_fixed0: u64,
    /// IA32_VMX_CR4_FIXED1.
    pub cr4_fixed1: u64,
    /// IA32_VMX_VMCS_ENUM.
    pub vmcs_enum: u64,
    /// IA32_VMX_PROCBASED_CTLS2.
    pub proc2: Allowed,
    /// IA32_VMX_EPT_VPID_CAP.
    pub ept_vpid: u64,
    /// IA32_VMX_TRUE_PINBASED_CTLS.
    pub pin_true: Allowed,
    /// IA32_VMX_TRUE_PROCBASED_CTLS.
    pub proc_true: Allowed,
    /// IA32_VMX_TRUE_EXIT_CTLS.
    pub exit_true: Allowed,
    /// IA32_VMX_TRUE_ENTRY_CTLS.
    pub entry_true: Allowed,
    /// IA32_VMX_VMFUNC.
    pub vmfunc: u64,
    /// IA32_VMX_PROCBASED_CTLS3: the bits that may be 1.
    pub proc3: u64,
    /// IA32_VMX_EXIT_CTLS2: the bits that may be 1.
    pub exit2: u64,
}

impl VmxCaps {
    /// Reads the MSRs that the CPU has through `rdmsr`, in an order in which
    /// each is known to exist before it is read.
    pub fn read(mut rdmsr: impl FnMut(u32) -> u64) -> Self {
        let mut caps = Self {
            basic: rdmsr(msr::IA32_VMX_BASIC),
            pin_plain: Allowed(rdmsr(msr::IA32_VMX_PINBASED_CTLS)),
            proc_plain: Allowed(rdmsr(msr::IA32_VMX_PROCBASED_CTLS)),
            exit_plain: Allowed(rdmsr(msr::IA32_VMX_EXIT_CTLS)),
            entry_plain: Allowed(rdmsr(msr::IA32_VMX_ENTRY_CTLS)),
            misc: rdmsr(msr::IA32_VMX_MISC),
            cr0_fixed0: rdmsr(msr::IA32_VMX_CR0_FIXED0),
            cr0_fixed1: rdmsr(msr::IA32_VMX_CR0_FIXED1),
            cr4_fixed0: rdmsr(msr::IA32_VMX_CR4_FIXED0),
            cr4_fixed1: rdmsr(msr::IA32_VMX_CR4_FIXED1),
            vmcs_enum: rdmsr(msr::IA32_VMX_VMCS_ENUM),
            ..Self::default()
        };
        if caps.has_true_controls() {
            caps.pin_true = Allowed(rdmsr(msr::IA32_VMX_TRUE_PINBASED_CTLS));
            caps.proc_true = Allowed(rdmsr(msr::IA32_VMX_TRUE_PROCBASED_CTLS));
            caps.exit_true = Allowed(rdmsr(msr::IA32_VMX_TRUE_EXIT_CTLS));
            caps.entry_true = Allowed(rdmsr(msr::IA32_VMX_TRUE_ENTRY_CTLS));
        }
        if caps.offers_proc(Proc::ACTIVATE_SECONDARY_CONTROLS) {
            caps.proc2 = Allowed(rdmsr(msr::IA32_VMX_PROCBASED_CTLS2));
        }
        if caps.offers_proc(Proc::ACTIVATE_TERTIARY_CONTROLS) {
            caps.proc3 = rdmsr(msr::IA32_VMX_PROCBASED_CTLS3);
        }
        if caps.offers_exit(Exit::ACTIVATE_SECONDARY_CONTROLS) {
            caps.exit2 = rdmsr(msr::IA32_VMX_EXIT_CTLS2);
        }
        if caps.offers_proc2(Proc2::ENABLE_EPT) || caps.offers_proc2(Proc2::ENABLE_VPID) {
            caps.ept_vpid = rdmsr(msr::IA32_VMX_EPT_VPID_CAP);
        }
        if caps.offers_proc2(Proc2::ENABLE_VM_FUNCTIONS) {
            caps.vmfunc = rdmsr(msr::IA32_VMX_VMFUNC);
        }
        caps
    }

    /// What RDMSR of `number` gives on a CPU with these capabilities; `None`
    /// where such a CPU lacks the MSR (a general-protection exception).
    pub fn msr(&self, number: u32) -> Option<u64> {
        let when = |has: bool, value: u64| if has { Some(value) } else { None };
        match number {
            msr::IA32_VMX_BASIC => Some(self.basic),
            msr::IA32_VMX_PINBASED_CTLS => Some(self.pin_plain.0),
            msr::IA32_VMX_PROCBASED_CTLS => Some(self.proc_plain.0),
            msr::IA32_VMX_EXIT_CTLS => Some(self.exit_plain.0),
            msr::IA32_VMX_ENTRY_CTLS => Some(self.entry_plain.0),
            msr::IA32_VMX_MISC => Some(self.misc),
            msr::IA32_VMX_CR0_FIXED0 => Some(self.cr0_fixed0),
            msr::IA32_VMX_CR0_FIXED1 => Some(self.cr0_fixed1),
            msr::IA32_VMX_CR4_FIXED0 => Some(self.cr4_fixed0),
            msr::IA32_VMX_CR4_FIXED1 => Some(self.cr4_fixed1),
            msr::IA32_VMX_VMCS_ENUM => Some(self.vmcs_enum),
            msr::IA32_VMX_PROCBASED_CTLS2 => when(
                self.offers_proc(Proc::ACTIVATE_SECONDARY_CONTROLS),
                self.proc2.0,
            ),
            msr::IA32_VMX_EPT_VPID_CAP => when(
                self.offers_proc2(Proc2::ENABLE_EPT) || self.offers_proc2(Proc2::ENABLE_VPID),
                self.ept_vpid,
            ),
            msr::IA32_VMX_TRUE_PINBASED_CTLS => when(self.has_true_controls(), self.pin_true.0),
            msr::IA32_VMX_TRUE_PROCBASED_CTLS => when(self.has_true_controls(), self.proc_true.0),
            msr::IA32_VMX_TRUE_EXIT_CTLS => when(self.has_true_controls(), self.exit_true.0),
            msr::IA32_VMX_TRUE_ENTRY_CTLS => when(self.has_true_controls(), self.entry_true.0),
            msr::IA32_VMX_VMFUNC => {
                when(self.offers_proc2(Proc2::ENABLE_VM_FUNCTIONS), self.vmfunc)
            }
            msr::IA32_VMX_PROCBASED_CTLS3 => when(
                self.offers_proc(Proc::ACTIVATE_TERTIARY_CONTROLS),
                self.proc3,
            ),
            msr::IA32_VMX_EXIT_CTLS2 => when(
                self.offers_exit(Exit::ACTIVATE_SECONDARY_CONTROLS),
                self.exit2,
            ),
            _ => None,
        }
    }

    /// The VMCS revision identifier (bits 30:0 of IA32_VMX_BASIC).
    #[inline]
    pub const fn revision(&self) -> u32 {
        self.basic as u32 & 0x7fff_ffff
    }

    /// Whether the TRUE capability MSRs exist (bit 55 of IA32_VMX_BASIC).
    #[inline]
    pub const fn has_true_controls(&self) -> bool {
        VmxBasic::TRUE_CONTROLS.is_in(self.basic)
    }

    /// Whether hardware exceptions can be injected with or without an error
    /// code, whatever the vector (bit 56 of IA32_VMX_BASIC).
    #[inline]
    pub const fn any_error_code_delivery(&self) -> bool {
        VmxBasic::ANY_ERROR_CODE.is_in(self.basic)
    }

    /// The pin-based controls' capability that VM entry checks against.
    #[inline]
    pub const fn pin(&self) -> Allowed {
        if self.has_true_controls() {
            self.pin_true
        } else {
            self.pin_plain
        }
    }

    /// The primary processor-based controls' capability.
    #[inline]
    pub const fn proc(&self) -> Allowed {
        if self.has_true_controls() {
            self.proc_true
        } else {
            self.proc_plain
        }
    }

    /// The primary VM-exit controls' capability.
    #[inline]
    pub const fn exit(&self) -> Allowed {
        if self.has_true_controls() {
            self.exit_true
        } else {
            self.exit_plain
        }
    }

    /// The VM-entry controls' capability.
    #[inline]
    pub const fn entry(&self) -> Allowed {
        if self.has_true_controls() {
            self.entry_true
        } else {
            self.entry_plain
        }
    }

    /// Whether all of the pin-based controls given may be 1.
    #[inline]
    pub const fn offers_pin(&self, bits: Pin) -> bool {
        self.pin().may_be_one() & bits.bits() == bits.bits()
    }

    /// Whether all of the primary controls given may be 1.
    #[inline]
    pub const fn offers_proc(&self, bits: Proc) -> bool {
        self.proc().may_be_one() & bits.bits() == bits.bits()
    }

    /// Whether all of the secondary controls given may be 1.
    #[inline]
    pub const fn offers_proc2(&self, bits: Proc2) -> bool {
        self.proc2.may_be_one() & bits.bits() == bits.bits()
    }

    /// Whether all of the tertiary controls given may be 1.
    #[inline]
    pub const fn offers_proc3(&self, bits: Proc3) -> bool {
        self.proc3 & bits.bits() == bits.bits()
    }

    /// Whether all of the VM-exit controls given may be 1.
    #[inline]
    pub const fn offers_exit(&self, bits: Exit) -> bool {
        self.exit().may_be_one() & bits.bits() == bits.bits()
    }

    /// Whether all of the VM-entry controls given may be 1.
    #[inline]
    pub const fn offers_entry(&self, bits: Entry) -> bool {
        self.entry().may_be_one() & bits.bits() == bits.bits()
    }

    /// How many CR3-target values there are. SDM "Miscellaneous Data".
    #[inline]
    pub const fn cr3_targets(&self) -> u32 {
        ((self.misc >> 16) & 0x1ff) as u32
    }

    /// The largest recommended count of an MSR list.
    #[inline]
    pub const fn msr_list_max(&self) -> u32 {
        512 * (((self.misc >> 25) & 7) as u32 + 1)
    }

    /// Whether VMWRITE may write any field, the read-only ones included (bit
    /// 29 of IA32_VMX_MISC).
    #[inline]
    pub const fn vmwrite_any_field(&self) -> bool {
        VmxMisc::VMWRITE_ANY_FIELD.is_in(self.misc)
    }

    /// Whether an event with instruction length 0 may be injected (bit 30).
    #[inline]
    pub const fn zero_length_injection(&self) -> bool {
        VmxMisc::ZERO_LENGTH_INJECTION.is_in(self.misc)
    }

    /// Whether VM exits store EFER.LMA into "IA-32e mode guest" (bit 5).
    #[inline]
    pub const fn stores_lma(&self) -> bool {
        VmxMisc::STORES_LMA.is_in(self.misc)
    }

    /// Takes away what a field needs, for a CPU that offers the feature and
    /// lacks the field. What must be 1 stays.
    pub const fn withdraw(&mut self, needs: Needs) {
        match needs {
            Needs::Nothing | Needs::AskCpu | Needs::Never => {}
            Needs::Pin(b) => {
                self.pin_plain = self.pin_plain.without(b.bits());
                self.pin_true = self.pin_true.without(b.bits());
            }
            Needs::Proc(b) => {
                self.proc_plain = self.proc_plain.without(b.bits());
                self.proc_true = self.proc_true.without(b.bits());
            }
            Needs::Proc2(b) => self.proc2 = self.proc2.without(b.bits()),
            Needs::Proc3(b) => self.proc3 &= !b.bits(),
            Needs::Exit(b) => {
                self.exit_plain = self.exit_plain.without(b.bits());
                self.exit_true = self.exit_true.without(b.bits());
            }
            Needs::Entry(b) => {
                self.entry_plain = self.entry_plain.without(b.bits());
                self.entry_true = self.entry_true.without(b.bits());
            }
            Needs::EptpSwitching => self.vmfunc &= !VmFunctions::EPTP_SWITCHING.bits(),
        }
    }

    /// Whether a CPU with these capabilities has the field.
    pub const fn has_field(&self, field: Field) -> bool {
        match field.needs() {
            Needs::Nothing | Needs::AskCpu => true,
            Needs::Never => false,
            Needs::Pin(b) => self.offers_pin(b),
            Needs::Proc(b) => self.offers_proc(b),
            Needs::Proc2(b) => self.offers_proc2(b),
            Needs::Proc3(b) => self.offers_proc3(b),
            Needs::Exit(b) => self.offers_exit(b),
            Needs::Entry(b) => self.offers_entry(b),
            Needs::EptpSwitching => self.vmfunc & 1 != 0,
        }
    }

    /// All the fields that a CPU with these capabilities has.
    pub fn fields(&self) -> FieldSet {
        let mut set = FieldSet::EMPTY;
        for f in field::ALL {
            if self.has_field(f) {
                set.insert(f);
            }
        }
        set
    }
}
